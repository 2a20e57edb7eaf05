//! How long something takes, for metrics. Without them, nothing is measured.

use std::time::Duration;
#[cfg(any(feature = "metrics", feature = "opentelemetry"))]
use std::time::Instant;

/// When something began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer(#[cfg(any(feature = "metrics", feature = "opentelemetry"))] Instant);

impl Timer {
    pub(crate) fn start() -> Self {
        Self(
            #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
            Instant::now(),
        )
    }

    /// Zero without metrics.
    pub(crate) fn elapsed(self) -> Duration {
        #[cfg(any(feature = "metrics", feature = "opentelemetry"))]
        return self.0.elapsed();
        #[cfg(not(any(feature = "metrics", feature = "opentelemetry")))]
        Duration::ZERO
    }
}
