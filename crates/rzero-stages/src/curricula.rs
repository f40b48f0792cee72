//! What a Solver step draws its questions from: the curriculum of its iteration, those of earlier ones where the profile replays them, and
//! anchors where it names some.
//!
//! The stages that ask, that reward and that audit declare and read it here, so that all three see the same questions in the same order.

use crate::answers::{answer_rule, known_form};
use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use crate::stages::eval::read_items_of;
use rzero_algo::curriculum::step_batch;
use rzero_algo::seed::StreamKey;
use rzero_schema::ids::Place;
use rzero_schema::tables::{CurriculumRow, EvalItem};
use rzero_schema::vocab::{Phase, Stage};
use std::ops::Range;

/// Where the curriculum of an iteration lies.
pub(crate) fn curriculum_place(iteration: u32) -> Place {
    Place::new(iteration, Phase::Curriculum, 0)
}

/// Name of the input that holds questions with answers from outside.
pub(crate) const ANCHORS: &str = "anchors";

/// How many questions of a step come from where.
#[derive(Clone, Copy)]
struct Shares {
    new: usize,
    replayed: usize,
    anchors: usize,
}

impl Shares {
    fn of(context: &StageContext) -> Self {
        let (stability, all) = (&context.profile.stability, context.profile.solver.num_questions);
        let (replayed, anchors) = (stability.num_replayed(all) as usize, stability.num_anchors(all) as usize);
        Self { new: all as usize - replayed - anchors, replayed, anchors }
    }

    /// Earlier iterations that a step of `iteration` draws from.
    fn earlier(self, iteration: u32) -> Range<u32> {
        if self.replayed > 0 { 1..iteration } else { 1..1 }
    }
}

/// Declares what a Solver step draws from.
///
/// # Errors
/// When the project's folder, which anchors lie in, is not found.
pub(crate) fn with_curricula<'a>(inputs: StageInputs<'a>, context: &StageContext) -> anyhow::Result<StageInputs<'a>> {
    let (shares, iteration) = (Shares::of(context), context.place.iteration);
    let current = (shares.new > 0).then_some(iteration);
    let declare = |inputs: StageInputs<'a>, iteration| inputs.with_stage_at(Stage::Filter, curriculum_place(iteration));
    let inputs = current.into_iter().chain(shares.earlier(iteration)).fold(inputs, declare);
    if shares.anchors == 0 {
        return Ok(inputs);
    }
    Ok(inputs.with_file(ANCHORS, &context.project_path(&context.profile.domain.anchors)?))
}

/// Every question that a Solver step may draw.
pub(crate) struct Curricula {
    /// Those of this iteration, those of earlier ones, anchors; each in the order of their tables.
    pub(crate) rows: Vec<CurriculumRow>,
    /// Answers of the anchors as their source writes them, in order.
    answers: Vec<String>,
    num_new: usize,
    num_earlier: usize,
}

impl Curricula {
    /// Reads what [`with_curricula`] declared.
    ///
    /// # Errors
    /// When a table cannot be read, or an anchor is not one that the domain can ask and grade.
    pub(crate) fn read(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Self> {
        let (shares, iteration) = (Shares::of(context), context.place.iteration);
        let kept = |iteration| -> anyhow::Result<Vec<CurriculumRow>> {
            Ok(inputs.output_at(Stage::Filter, curriculum_place(iteration))?.read()?)
        };
        let mut rows = if shares.new > 0 { kept(iteration)? } else { Vec::new() };
        let num_new = rows.len();
        for iteration in shares.earlier(iteration) {
            rows.extend(kept(iteration)?);
        }
        let num_earlier = rows.len() - num_new;
        let mut answers = Vec::new();
        if shares.anchors > 0 {
            let path = inputs.path(ANCHORS)?;
            for item in read_items_of(path)? {
                let anchor = anchor(context, &item).map_err(|problem| {
                    let message = format!("{}: `{}` cannot be an anchor: {problem}", path.display(), item.item_id);
                    StageFailure::input(message).hint("take it out of the file that domain.anchors names")
                })?;
                rows.push(anchor);
                answers.push(item.answer);
            }
        }
        Ok(Self { rows, answers, num_new, num_earlier })
    }

    /// The answer that an anchor brings; nothing for a question of the Challenger's.
    pub(crate) fn answer(&self, at: usize) -> Option<&str> {
        self.answers.get(at.checked_sub(self.num_new + self.num_earlier)?).map(String::as_str)
    }

    /// The questions of the step, as places in `rows`: new ones, then replayed ones, then anchors.
    ///
    /// # Errors
    /// When this iteration's curriculum is empty.
    pub(crate) fn batch(&self, context: &StageContext) -> anyhow::Result<Vec<usize>> {
        let Place { iteration, step, .. } = context.place;
        let mut shares = Shares::of(context);
        if shares.new > 0 && self.num_new == 0 {
            let message = format!("the curriculum of iteration {iteration} is empty: the filter kept no question");
            let hint = "look at the drop reasons beside it; a wider band or more candidates keep more (curriculum.bands, curriculum.num_candidates)";
            return Err(StageFailure::input(message).hint(hint).into());
        }
        if self.num_earlier == 0 {
            shares.new += std::mem::take(&mut shares.replayed);
        }
        // Each kind is shuffled by a stream of its own.
        let key = |phase| StreamKey { run_seed: context.profile.seed, iteration, phase, step: 0, row: 0, sample: 0 };
        let anchors_at = self.num_new + self.num_earlier;
        let kinds = [
            (0, self.num_new, shares.new, Phase::Solver),
            (self.num_new, self.num_earlier, shares.replayed, Phase::Curriculum),
            (anchors_at, self.rows.len() - anchors_at, shares.anchors, Phase::Eval),
        ];
        let drawn = kinds.into_iter().flat_map(|(start, num_rows, num_drawn, phase)| {
            step_batch(num_rows, num_drawn, step, &key(phase)).into_iter().map(move |at| start + at)
        });
        Ok(drawn.collect())
    }
}

/// A question from outside as a row of the curriculum: its true answer is its label, and all agree on it.
fn anchor(context: &StageContext, item: &EvalItem) -> Result<CurriculumRow, String> {
    if !item.options.is_empty() {
        return Err("it is a choice among options, and the Solver is asked for an answer".to_owned());
    }
    let pseudo_label = known_form(&item.answer, &answer_rule(&context.profile))
        .map_err(|status| format!("its answer `{}` is {status}", item.answer))?;
    Ok(CurriculumRow {
        challenge_id: format!("anchor:{}", item.item_id),
        row: item.row,
        question: item.question.clone(),
        pseudo_label,
        vote_share: 1.0,
        margin: 1.0,
        gate_version: context.profile.curriculum.gate_version,
    })
}
