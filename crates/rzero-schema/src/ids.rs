//! Readable ids: where in a run a row was born, written so that a person can walk to it.
//!
//! A challenge id is `iteration/phase/step/row`, for instance `001/curriculum/00/00017`: iteration 1, curriculum phase, row 17.
//! It is unique within a run and equal for any number of shards. The iteration and phase are those in which the question was written.

use crate::vocab::Phase;
use std::fmt;
use std::str::FromStr;

/// The place a stage works at: iteration, phase and step (0 where a phase has no steps); within a step whose gradient is shared out, the update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Iteration, 0 for the base model's evaluation.
    pub iteration: u32,
    /// Phase within the iteration.
    pub phase: Phase,
    /// Step within the phase, counted from 1; 0 where the phase has no steps.
    pub step: u32,
    /// Update within the step, counted from 1; 0 for what belongs to the whole step.
    pub update: u32,
}

impl Place {
    /// A place that is no part of a step.
    #[must_use]
    pub const fn new(iteration: u32, phase: Phase, step: u32) -> Self {
        Self { iteration, phase, step, update: 0 }
    }

    /// The place of an update of this step; 0 is the step itself.
    #[must_use]
    pub const fn at_update(self, update: u32) -> Self {
        Self { update, ..self }
    }

    /// The id of the question in row `row` of this place.
    #[must_use]
    pub fn challenge_id(&self, row: u64) -> ChallengeId {
        ChallengeId { place: *self, row }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:03}/{}/{:02}", self.iteration, self.phase, self.step)?;
        if self.update > 0 { write!(formatter, "/update-{:02}", self.update) } else { Ok(()) }
    }
}

/// The id of one question of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChallengeId {
    /// Where the question was written.
    pub place: Place,
    /// Its row among the questions of that place.
    pub row: u64,
}

impl fmt::Display for ChallengeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{:05}", self.place, self.row)
    }
}

/// A text that is no challenge id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no challenge id, expected iteration/phase/step/row such as 001/curriculum/00/00017")]
pub struct NotAnId(pub String);

impl FromStr for ChallengeId {
    type Err = NotAnId;
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let refuse = || NotAnId(text.chars().take(80).collect());
        let parts: Vec<&str> = text.split('/').collect();
        let [iteration, phase, step, row] = parts.as_slice() else { return Err(refuse()) };
        Ok(Self {
            place: Place::new(
                iteration.parse().map_err(|_| refuse())?,
                phase.parse().map_err(|_| refuse())?,
                step.parse().map_err(|_| refuse())?,
            ),
            row: row.parse().map_err(|_| refuse())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_as_itself() {
        let id = Place::new(12, Phase::Curriculum, 0).challenge_id(123_456);
        assert_eq!(id.to_string(), "012/curriculum/00/123456");
        assert_eq!(id.to_string().parse::<ChallengeId>(), Ok(id));
        assert!("1/nowhere/2/3".parse::<ChallengeId>().is_err());
        assert!("".parse::<ChallengeId>().is_err());
    }
}
