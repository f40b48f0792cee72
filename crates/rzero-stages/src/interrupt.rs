//! Being told to stop: SIGTERM, SIGINT and SIGUSR1 set a flag that stages look at between units of work.
//!
//! Files appear whole or not at all, so an interrupted stage leaves nothing to clean up and can be run again.

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The error of a stage that was told to stop: exit code 75.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("interrupted before the output was complete")]
pub struct Interrupted;

/// Whether the process was told to stop. Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens for the signals. A second SIGINT ends the process at once.
    ///
    /// # Errors
    /// When the system refuses a handler.
    pub fn listen() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        signal_hook::flag::register_conditional_shutdown(SIGINT, 75, Arc::clone(&interrupt.flag))
            .context("cannot listen for signals")?;
        for signal in [SIGTERM, SIGINT, SIGUSR1] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.flag)).context("cannot listen for signals")?;
        }
        Ok(interrupt)
    }

    /// Whether a signal has come.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// The flag itself, for loops that know nothing of signals.
    #[must_use]
    pub fn flag(&self) -> &AtomicBool {
        &self.flag
    }

    /// For use with `?` between units of work.
    ///
    /// # Errors
    /// [`Interrupted`] when a signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.is_set() { Err(Interrupted) } else { Ok(()) }
    }

    /// Waits, unless told to stop.
    ///
    /// # Errors
    /// [`Interrupted`] when a signal has come.
    pub fn wait(&self, how_long: Duration) -> Result<(), Interrupted> {
        let until = Instant::now() + how_long;
        while Instant::now() < until {
            self.check()?;
            std::thread::sleep(Duration::from_millis(50).min(how_long));
        }
        Ok(())
    }
}
