//! The variants of [`Error`] by their names: for `error.type`, and for the alternate form of `Debug`.

use std::fmt;

use super::Error;

/// Lists the variants and their fields once, for [`Error::kind`] and the alternate form of `Debug`.
macro_rules! variants {
    ($($(#[$only:meta])? $name:ident $({ $($field:ident),+ })? $(($source:ident))?,)+) => {
        impl Error {
            #[cfg(test)]
            pub(crate) const KINDS: &[&str] = &[$($(#[$only])? stringify!($name)),+];

            /// The variant's name, for `error.type` in traces.
            pub(crate) fn kind(&self) -> &'static str {
                match self {
                    $($(#[$only])? Self::$name { .. } => stringify!($name),)+
                }
            }

            fn debug_fields(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($(#[$only])? Self::$name $({ $($field),+ })? $(($source))? => f
                        .debug_struct(stringify!($name))
                        $($(.field(stringify!($field), $field))+)?
                        $(.field("source", $source))?
                        .finish(),)+
                }
            }
        }
    };
}

variants! {
    NotInstalled,
    SchemaOutdated,
    SchemaNewer { installed, compiled },
    SchemaDistributed { tables },
    Migrate(source),
    PermissionDenied { role, object, source },
    QueueNotFound { queue },
    QueueClosed { queue },
    QueueExists { queue },
    QueueNotEmpty { queue, messages },
    WorkerExists { kind, hostname, port, queue, last_heartbeat, crashed_after },
    WorkerNotFound { worker },
    WorkerSuspended { worker },
    WorkerStopped { worker },
    InvalidTransition { worker, from, to },
    InvalidHostname { hostname },
    InvalidQueueName(source),
    InvalidHeader(source),
    InvalidKey { index, problem },
    Unkeyed { index, source },
    KeyHeld { queue },
    GroupsNotEnabled { queue },
    #[cfg(feature = "schedules")]
    InvalidCron(source),
    #[cfg(feature = "schedules")]
    ScheduleNotFound { schedule },
    #[cfg(feature = "schedules")]
    ScheduleTaken { schedule, owner },
    InvalidSetting { setting, value, expected },
    Serialize { index, source },
    PayloadTooLarge { index, bytes, limit },
    PayloadTooDeep { index, limit },
    Decode { message, source },
    DelayTooLong { delay, limit },
    LimitOutOfRange { limit, max },
    LeaseOutOfRange { lease, min, max },
    LeaseLost { message },
    AcquireTimeout { after },
    Closed,
    Connect(source),
    ConnectionLost(source),
    NotStored { after, source },
    OutcomeUnknown { ids, source },
    Database(source),
}

/// For `fn main() -> Result<(), Box<dyn Error>>`, which prints this: the sentence and what to do, then the causes, each
/// on a line of its own. The alternate form `{:#?}` has the variant and its fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.debug_fields(f);
        }
        write!(f, "{self}")?;
        let mut cause = std::error::Error::source(self);
        if cause.is_some() {
            f.write_str("\n\nCaused by:")?;
        }
        while let Some(error) = cause {
            write!(f, "\n    {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
