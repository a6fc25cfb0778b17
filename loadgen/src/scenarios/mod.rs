//! What can be run. `stage` and `fleet` know no dialect; the scenarios here speak pairing.

pub(crate) mod churn;
pub(crate) mod compare;
pub(crate) mod fleet;
pub(crate) mod idle;
pub(crate) mod run;
pub(crate) mod stage;
pub(crate) mod verify;
