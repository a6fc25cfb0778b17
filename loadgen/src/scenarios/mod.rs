//! What can be run. `stage`, `fleet`, `window` and `content` know no dialect.

pub(crate) mod churn;
pub(crate) mod compare;
mod content;
pub(crate) mod fleet;
pub(crate) mod idle;
mod member;
pub(crate) mod pipe;
pub(crate) mod run;
pub(crate) mod stage;
pub(crate) mod verify;
mod window;
