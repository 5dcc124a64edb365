//! The timeouts that are in force, each with the line that set it.

use std::time::Duration;

use crate::config::{ClientLimits, Location, Places};

/// A setting in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key.
    pub key: &'static str,
    /// Its value; `None`: no limit.
    pub value: Option<Duration>,
    /// The key that it was set by, which for tunnels may be another one.
    pub set_by: &'static str,
    /// The line that has set it; `None`: it is the default.
    pub line: Option<usize>,
}

/// What a request is on its way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// An answer of hopgate's own.
    Local,
    /// An upstream.
    Forward,
    /// A tunnel.
    Tunnel,
}

/// Where a setting is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) places: &'a Places,
    /// The default server of the address: its limits hold until the host is known, and between requests.
    pub(super) default_server: usize,
    pub(super) server: usize,
    pub(super) location: usize,
}

/// The timeouts that matter on the way of a request.
pub(super) fn timeouts(
    scope: Scope<'_>,
    limits: &ClientLimits,
    location: &Location,
    kind: Kind,
    has_body: bool,
) -> Vec<Setting> {
    let of_server = |key, value| Setting {
        key,
        value: Some(value),
        set_by: key,
        line: scope.places.for_server(scope.default_server, key),
    };
    let set_by = |key, value, set_by| Setting {
        key,
        value,
        set_by,
        line: scope.places.inherited(scope.server, scope.location, set_by),
    };
    let own = |key, value| set_by(key, value, key);
    let times = &location.timeouts;
    let mut found = vec![of_server("client_header_timeout", limits.header_timeout)];
    if has_body {
        found.push(own("client_body_timeout", Some(times.client_body)));
    }
    if kind != Kind::Local {
        found.push(own("proxy_connect_timeout", Some(times.proxy_connect)));
    }
    if kind != Kind::Local
        && let Some(most) = location.next_upstream.timeout
    {
        found.push(own("proxy_next_upstream_timeout", Some(most)));
    }
    match kind {
        Kind::Local => {}
        Kind::Forward => {
            found.push(own("proxy_send_timeout", Some(times.proxy_send)));
            found.push(own("proxy_read_timeout", Some(times.proxy_read)));
        }
        Kind::Tunnel => {
            found.push(own("tunnel_handshake_timeout", Some(times.tunnel_handshake)));
            found.push(set_by("tunnel_idle_timeout", times.tunnel_idle, times.tunnel_idle_key));
            found.push(own("tunnel_linger", Some(times.tunnel_linger)));
            found.push(own("tunnel_max_age", times.tunnel_age));
        }
    }
    if kind != Kind::Tunnel {
        found.push(own("send_timeout", Some(times.send)));
        found.push(of_server("keepalive_timeout", limits.keepalive_timeout));
    }
    found
}

/// A time as it is written in the file: `1h`, `1m30s`, `500ms`.
pub(super) fn time(time: Duration) -> String {
    let mut left = time.as_millis();
    if left == 0 {
        return "0".to_owned();
    }
    let mut text = String::new();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
        if left >= length {
            text.push_str(&format!("{}{unit}", left / length));
            left %= length;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units;

    #[test]
    fn a_time_is_shown_as_it_can_be_written() {
        for (millis, text) in [
            (0, "0"),
            (500, "500ms"),
            (60_000, "1m"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (86_400_000, "1d"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(time(duration), text);
            assert_eq!(units::time(text).unwrap(), duration, "{text}");
        }
    }
}
