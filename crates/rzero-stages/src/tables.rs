//! From the name of a table to the type of its rows.

/// Calls a function for the type of a table's rows, by the table's name.
macro_rules! for_table {
    ($name:expr, $function:ident($($argument:expr),*)) => {{
        use rzero_schema::table::Table as _;
        use rzero_schema::tables as t;
        match $name {
            t::Rollout::NAME => Some($function::<t::Rollout>($($argument),*)),
            t::Challenge::NAME => Some($function::<t::Challenge>($($argument),*)),
            t::MemoryRow::NAME => Some($function::<t::MemoryRow>($($argument),*)),
            t::JudgedAnswer::NAME => Some($function::<t::JudgedAnswer>($($argument),*)),
            t::Label::NAME => Some($function::<t::Label>($($argument),*)),
            t::CurriculumRow::NAME => Some($function::<t::CurriculumRow>($($argument),*)),
            t::DroppedRow::NAME => Some($function::<t::DroppedRow>($($argument),*)),
            t::LabelCheck::NAME => Some($function::<t::LabelCheck>($($argument),*)),
            t::RewardRow::NAME => Some($function::<t::RewardRow>($($argument),*)),
            t::GradientSum::NAME => Some($function::<t::GradientSum>($($argument),*)),
            t::TrainMetrics::NAME => Some($function::<t::TrainMetrics>($($argument),*)),
            t::StepTiming::NAME => Some($function::<t::StepTiming>($($argument),*)),
            t::PretrainMetrics::NAME => Some($function::<t::PretrainMetrics>($($argument),*)),
            t::EvalItem::NAME => Some($function::<t::EvalItem>($($argument),*)),
            t::EvalResult::NAME => Some($function::<t::EvalResult>($($argument),*)),
            t::Judgement::NAME => Some($function::<t::Judgement>($($argument),*)),
            _ => None,
        }
    }};
}
pub(crate) use for_table;
