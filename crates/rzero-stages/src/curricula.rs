//! What a Solver step draws its questions from: the curriculum of its iteration, and those of earlier ones where the profile replays them.
//!
//! The stages that ask, that reward and that audit declare and read it here, so that all three see the same questions in the same order.

use crate::context::StageContext;
use crate::exit::StageFailure;
use crate::inputs::StageInputs;
use rzero_algo::curriculum::step_batch;
use rzero_algo::seed::StreamKey;
use rzero_schema::ids::Place;
use rzero_schema::tables::CurriculumRow;
use rzero_schema::vocab::{Phase, Stage};

/// Where the curriculum of an iteration lies.
pub(crate) fn curriculum_place(iteration: u32) -> Place {
    Place::new(iteration, Phase::Curriculum, 0)
}

/// Iterations whose curricula a Solver step of `iteration` draws from: its own first, then the earlier ones.
fn iterations(context: &StageContext) -> Vec<u32> {
    let iteration = context.place.iteration;
    let num_replayed = context.profile.stability.num_replayed(context.profile.solver.num_questions);
    let earlier = if num_replayed > 0 { 1..iteration } else { 1..1 };
    std::iter::once(iteration).chain(earlier).collect()
}

/// Declares the curricula that a Solver step draws from.
pub(crate) fn with_curricula<'a>(inputs: StageInputs<'a>, context: &StageContext) -> StageInputs<'a> {
    iterations(context)
        .into_iter()
        .fold(inputs, |inputs, iteration| inputs.with_stage_at(Stage::Filter, curriculum_place(iteration)))
}

/// Every question that a Solver step may draw.
pub(crate) struct Curricula {
    /// Those of this iteration, then those of earlier ones, each in the order of their tables.
    pub(crate) rows: Vec<CurriculumRow>,
    num_current: usize,
}

impl Curricula {
    /// Reads what [`with_curricula`] declared.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub(crate) fn read(context: &StageContext, inputs: &StageInputs<'_>) -> anyhow::Result<Self> {
        let (mut rows, mut num_current) = (Vec::new(), 0);
        for (at, iteration) in iterations(context).into_iter().enumerate() {
            rows.extend(inputs.output_at(Stage::Filter, curriculum_place(iteration))?.read::<CurriculumRow>()?);
            if at == 0 {
                num_current = rows.len();
            }
        }
        Ok(Self { rows, num_current })
    }

    /// The questions of the step, as places in `rows`: new ones first, then replayed ones.
    ///
    /// # Errors
    /// When this iteration's curriculum is empty.
    pub(crate) fn batch(&self, context: &StageContext) -> anyhow::Result<Vec<usize>> {
        let Place { iteration, step, .. } = context.place;
        if self.num_current == 0 {
            let message = format!("the curriculum of iteration {iteration} is empty: the filter kept no question");
            let hint = "look at the drop reasons beside it; a wider band or more candidates keep more (curriculum.bands, curriculum.num_candidates)";
            return Err(StageFailure::input(message).hint(hint).into());
        }
        let num_questions = context.profile.solver.num_questions;
        let num_earlier = self.rows.len() - self.num_current;
        let num_replayed = if num_earlier == 0 { 0 } else { context.profile.stability.num_replayed(num_questions) };
        let key = StreamKey { run_seed: context.profile.seed, iteration, phase: Phase::Solver, step: 0, row: 0, sample: 0 };
        let mut batch = step_batch(self.num_current, (num_questions - num_replayed) as usize, step, &key);
        // Replayed questions are shuffled by a stream of their own.
        let replay_key = StreamKey { phase: Phase::Curriculum, ..key };
        let replayed = step_batch(num_earlier, num_replayed as usize, step, &replay_key);
        batch.extend(replayed.into_iter().map(|at| self.num_current + at));
        Ok(batch)
    }
}
