//! Why a tunnel ended: one named cause each, in the log and in the metrics.

/// Why a tunnel ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// The client closed first, in good order, and the upstream followed.
    ClientClosed,
    /// The upstream closed first, in good order, and the client followed.
    UpstreamClosed,
    /// The client's connection broke.
    ClientReset,
    /// The upstream's connection broke.
    UpstreamReset,
    /// Not a byte came for the idle timeout.
    Idle,
    /// The tunnel reached `tunnel_max_age`.
    Age,
    /// One side closed, and the other did not follow within `tunnel_linger`.
    Linger,
    /// hopgate was told to stop.
    Drain,
    /// hopgate was told to stop, and the grace period is over.
    Killed,
}

impl TunnelEnd {
    /// The name of the cause: `$tunnel_end`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::UpstreamClosed => "upstream_closed",
            Self::ClientReset => "client_reset",
            Self::UpstreamReset => "upstream_reset",
            Self::Idle => "idle",
            Self::Age => "age",
            Self::Linger => "linger",
            Self::Drain => "drain",
            Self::Killed => "killed",
        }
    }

    /// The setting that would have let the tunnel live on, if it was one; `idle` is the name of the one
    /// that the idle timeout came from.
    pub fn setting(self, idle: &'static str) -> Option<&'static str> {
        match self {
            Self::Idle => Some(idle),
            Self::Age => Some("tunnel_max_age"),
            Self::Linger => Some("tunnel_linger"),
            Self::ClientClosed
            | Self::UpstreamClosed
            | Self::ClientReset
            | Self::UpstreamReset
            | Self::Drain
            | Self::Killed => None,
        }
    }
}
