//! Which checkpoint a role stands at: where each iteration starts, what a step continues from, what an iteration leaves.

use crate::context::StageContext;
use rzero_schema::ids::Place;
use rzero_schema::vocab::{Phase, Role, StartFrom};
use std::path::{Path, PathBuf};

impl StageContext {
    /// The checkpoint that a role has after an iteration; iteration 0 is the base model.
    ///
    /// # Errors
    /// When the base model is meant and the project's folder is not found.
    pub fn checkpoint_dir(&self, role: Role, iteration: u32) -> anyhow::Result<PathBuf> {
        let (phase, num_steps, _) = self.training(role);
        if iteration == 0 {
            self.project_path(&self.profile.model.path)
        } else if num_steps == 0 {
            self.start_checkpoint(role, iteration)
        } else {
            Ok(self.layout.phase_checkpoint(iteration, phase))
        }
    }

    /// The checkpoint that a role's training starts an iteration from.
    ///
    /// # Errors
    /// As [`StageContext::checkpoint_dir`].
    pub fn start_checkpoint(&self, role: Role, iteration: u32) -> anyhow::Result<PathBuf> {
        let before = iteration.saturating_sub(1);
        match self.training(role).2 {
            StartFrom::Previous => self.checkpoint_dir(role, before),
            StartFrom::Base => self.checkpoint_dir(role, 0),
            StartFrom::Solver => self.checkpoint_dir(Role::Solver, before),
        }
    }

    /// The checkpoint of the policy that a training step samples from and updates: that of the step before.
    ///
    /// # Errors
    /// As [`StageContext::checkpoint_dir`].
    pub fn policy_checkpoint(&self, role: Role, iteration: u32, step: u32) -> anyhow::Result<PathBuf> {
        if step <= 1 {
            return self.start_checkpoint(role, iteration);
        }
        Ok(self.layout.step_checkpoint(Place::new(iteration, self.training(role).0, step - 1)))
    }

    /// The training step that leaves the checkpoint in `folder`; `None` for one that lies outside the run, such as the base model.
    pub(crate) fn checkpoint_step(&self, folder: &Path) -> Option<Place> {
        let (iteration, phase, step) = self.layout.checkpoint_origin(folder)?;
        Some(Place::new(iteration, phase, step.unwrap_or(self.training(role_of(phase)).1)))
    }

    /// Phase, number of steps and start of a role's training.
    fn training(&self, role: Role) -> (Phase, u32, StartFrom) {
        match role {
            Role::Challenger => (Phase::Challenger, self.profile.challenger.steps, self.profile.challenger.start_from),
            Role::Solver => (Phase::Solver, self.profile.solver.steps, self.profile.solver.start_from),
            Role::Verifier => {
                let settings = self.profile.verifier.as_ref();
                let (steps, start) = settings.map_or((0, StartFrom::Base), |verifier| (verifier.steps, verifier.start_from));
                (Phase::Verifier, steps, start)
            }
        }
    }
}

/// The role that a phase trains.
pub(crate) fn role_of(phase: Phase) -> Role {
    match phase {
        Phase::Challenger => Role::Challenger,
        Phase::Verifier => Role::Verifier,
        Phase::Curriculum | Phase::Solver | Phase::Eval => Role::Solver,
    }
}
