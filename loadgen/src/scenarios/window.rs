//! The measured interval: what the servers and the generator spend in it.

use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::failure::Failure;
use crate::process::CpuReading;
use crate::servers::{Servers, Spent};

/// What was spent in the measured interval.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    /// By the servers.
    pub(crate) spent: Spent,
    /// CPU time of the generator in each second.
    pub(crate) own_cpu_ns_per_s: u64,
}

impl Window {
    /// Lets the warm-up pass, then measures for `duration`.
    pub(crate) fn measure(
        stage: &Stage,
        servers: &Servers,
        warmup: Duration,
        duration: Duration,
    ) -> Result<Self, Failure> {
        stage.wait("warm-up", stage.now_ns() + warmup.as_nanos() as u64)?;
        let before = servers.read()?;
        let own_before = CpuReading::of(std::process::id())?;
        let (start, start_ns) = (Instant::now(), stage.now_ns());
        let end_ns = start_ns + duration.as_nanos() as u64;
        stage.measure(start_ns, end_ns);
        stage.wait("measuring", end_ns)?;
        let own_after = CpuReading::of(std::process::id())?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Self {
            spent: before.until(&servers.read_at_end()?),
            own_cpu_ns_per_s: (own_after.ns_since(&own_before) as f64 / seconds) as u64,
        })
    }
}
