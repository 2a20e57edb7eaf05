//! What a new server is for, and its settings.

/// The purpose of a new server.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// Without durability: its data needn't survive a crash.
    Tests,
    /// Durable commits, as on a production server.
    Benchmarks,
    /// As `Tests`, with the library of the extension Citus.
    TestsOnCitus,
    /// As `Benchmarks`, with the library of the extension Citus.
    BenchmarksOnCitus,
}

const DURABLE: &str =
    // The peers' pools open many connections; the other settings are those of a server with some memory.
    "-c fsync=on -c shared_buffers=1GB -c max_wal_size=8GB -c checkpoint_timeout=1h -c max_connections=300";

/// Citus turns TLS on unless it is turned off here.
const CITUS: &str =
    "-c shared_preload_libraries=citus -c ssl=off -c citus.node_conninfo=sslmode=prefer";

impl Purpose {
    pub(super) fn settings(self) -> String {
        match self {
            Self::Tests => "-c fsync=off -c max_connections=200".to_owned(),
            // It has a process for each database.
            Self::TestsOnCitus => {
                format!("-c fsync=off -c max_connections=200 -c max_worker_processes=100 {CITUS}")
            }
            Self::Benchmarks => DURABLE.to_owned(),
            Self::BenchmarksOnCitus => format!("{DURABLE} {CITUS}"),
        }
    }

    /// Whether its data are on a disk.
    pub(super) fn is_durable(self) -> bool {
        matches!(self, Self::Benchmarks | Self::BenchmarksOnCitus)
    }
}
