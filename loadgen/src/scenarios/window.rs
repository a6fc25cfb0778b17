//! The measured interval: what the server and the generator spend in it.

use std::time::{Duration, Instant};

use super::stage::Stage;
use crate::failure::Failure;
use crate::process::CpuReading;

/// What was spent in the measured interval.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Window {
    /// CPU time of the server.
    pub(crate) server_cpu_ns: Option<u64>,
    /// CPU time of the generator in each second.
    pub(crate) own_cpu_ns_per_s: u64,
}

impl Window {
    /// Lets the warm-up pass, then measures for `duration`.
    pub(crate) fn measure(
        stage: &Stage,
        pid: Option<u32>,
        warmup: Duration,
        duration: Duration,
    ) -> Result<Self, Failure> {
        let cpu = || pid.map(CpuReading::of).transpose();
        stage.wait("warm-up", stage.now_ns() + warmup.as_nanos() as u64)?;
        let (own_before, cpu_before) = (CpuReading::of(std::process::id())?, cpu()?);
        let (start, start_ns) = (Instant::now(), stage.now_ns());
        let end_ns = start_ns + duration.as_nanos() as u64;
        stage.measure(start_ns, end_ns);
        stage.wait("measuring", end_ns)?;
        let (own_after, cpu_after) = (CpuReading::of(std::process::id())?, cpu()?);
        let seconds = start.elapsed().as_secs_f64();
        Ok(Self {
            server_cpu_ns: cpu_before.zip(cpu_after).map(|(before, after)| after.ns_since(&before)),
            own_cpu_ns_per_s: (own_after.ns_since(&own_before) as f64 / seconds) as u64,
        })
    }
}
