//! Buffers that passes use again: fresh memory is cleared by the system page by page, which costs as much as a product does in places.
//!
//! A buffer is asked for by rows and width and comes back with whatever was left in it. All buffers of one width have room for the same number
//! of rows, that of the largest micro-batch, so that they serve every micro-batch. A process has one workspace: what the reference's pass used serves
//! the policy's, and an update's the next.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Buffers not in use, by width.
#[derive(Debug, Default)]
pub struct Workspace {
    free: Mutex<BTreeMap<usize, Vec<Vec<f32>>>>,
}

/// The buffers of this process.
static OF_PROCESS: Workspace = Workspace { free: Mutex::new(BTreeMap::new()) };

impl Workspace {
    /// The one that all passes of this process share.
    #[must_use]
    pub fn of_process() -> &'static Self {
        &OF_PROCESS
    }

    /// A buffer of `rows` times `width` numbers, of any value.
    #[must_use]
    pub fn take(&self, rows: usize, width: usize) -> Vec<f32> {
        let found = self.free.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&width).and_then(Vec::pop);
        match found {
            Some(mut buffer) => {
                buffer.resize(rows * width, 0.0);
                buffer
            }
            None => vec![0.0; rows * width],
        }
    }

    /// The same, all zero.
    #[must_use]
    pub fn zeroed(&self, rows: usize, width: usize) -> Vec<f32> {
        let mut buffer = self.take(rows, width);
        buffer.fill(0.0);
        buffer
    }

    /// Takes a buffer back for the next that asks for this width.
    pub fn give(&self, buffer: Vec<f32>, width: usize) {
        self.free.lock().unwrap_or_else(PoisonError::into_inner).entry(width).or_default().push(buffer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_was_given_back_serves_again_in_another_length() {
        let workspace = Workspace::default();
        workspace.give(vec![7.0; 12], 4);
        assert_eq!(workspace.take(2, 4), [7.0; 8]);
        assert_eq!(workspace.take(2, 4), [0.0; 8]);
        workspace.give(vec![7.0; 4], 4);
        assert_eq!(workspace.take(2, 4), [[7.0; 4], [0.0; 4]].concat());
        workspace.give(vec![7.0; 4], 4);
        assert_eq!(workspace.zeroed(1, 4), [0.0; 4]);
    }
}
