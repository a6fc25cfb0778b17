//! Panics stop at the client that they happened over.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `work`; a panic in it comes back as an error.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> Result<T, Panic> {
    // What a panic leaves half done belongs to the client that is cut for it.
    catch_unwind(AssertUnwindSafe(work)).map_err(Panic)
}

/// A caught panic.
pub(super) struct Panic(Box<dyn Any + Send>);

impl std::fmt::Display for Panic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = self.0.downcast_ref::<&str>().copied();
        let text = text.or_else(|| self.0.downcast_ref::<String>().map(String::as_str));
        f.write_str(text.unwrap_or("no message"))
    }
}
