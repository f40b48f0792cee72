//! Parquet tables, manifests and paths: the one door through which a run's bytes enter and leave.
//!
//! [`atomic`] publishes a file whole or not at all; [`writer`] and [`reader`] move rows, [`scan`] columns of large tables; [`rows`] takes them from tables that others wrote;
//! [`manifest`] says that a part exists; [`layout`] knows where everything lies; [`set`] opens a stage's whole output and refuses an incomplete
//! one. [`store`] keeps a run in an object store, of which it asks what stands in [`objects`].
//! There is no command line, no clock and no mathematics here.

pub mod atomic;
pub mod error;
pub mod keys;
pub mod layout;
pub mod manifest;
pub mod objects;
pub mod pruned;
pub mod reader;
pub mod rows;
pub mod scan;
pub mod set;
pub mod store;
pub mod writer;

pub use error::{IoError, Result};
