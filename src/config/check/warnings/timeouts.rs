//! Long HTTP timeouts where those of tunnels are meant, and rules about upgrades that say no and yes.

use std::time::Duration;

use serde_spanned::Spanned;

use crate::config::error::Mistake;
use crate::config::file::{ForLocations, Value};

/// From here on a timeout of HTTP is advice about WebSockets.
const LONG: Duration = Duration::from_secs(3600);

/// Looks at what is said at one level of the file.
pub(super) fn find(written: &ForLocations, found: &mut Vec<Mistake>) {
    // What is asked in HTTP/2 is gRPC, as a rule, whose streams are requests and may be as long as any tunnel.
    let is_http2 = written.proxy_http_version.given().is_some_and(|version| version.get_ref() == "2");
    let long = |time: &&Spanned<Duration>| !is_http2 && *time.get_ref() >= LONG;
    let read = written.proxy_read_timeout.given().filter(long);
    let send = written.proxy_send_timeout.given().filter(long);
    for (key, time) in [("proxy_read_timeout", read), ("proxy_send_timeout", send)] {
        let Some(time) = time else { continue };
        let message = format!("`{key}` is about every request: one that the app has forgotten waits as long");
        let help = match written.tunnel_idle_timeout.is_absent() {
            true => {
                let longest = [read, send].into_iter().flatten().map(|time| *time.get_ref()).max();
                format!(
                    "if it is for WebSockets, write `tunnel_idle_timeout = \"{}\"` instead, which holds for tunnels alone",
                    humane(longest.unwrap_or(LONG))
                )
            }
            false => format!(
                "leave it out: `tunnel_idle_timeout` is there for WebSockets, and `{key}` is 60s by itself"
            ),
        };
        found.push(Mistake::warning(time.span(), message).help(help));
    }
    if let (Value::Given(websocket), Value::Given(upgrade)) = (&written.websocket, &written.upgrade)
        && !*websocket.get_ref()
        && !upgrade.get_ref().0.is_empty()
    {
        let message = "WebSockets are refused here, and other protocols let through: those are tunnels, too";
        let mistake = Mistake::warning(websocket.span(), message).also(upgrade.span(), "let through");
        found.push(mistake.label("refused").help("write `upgrade = []` if no tunnels are wanted at all"));
    }
}

/// As one would write it: in days or hours if it is whole ones.
fn humane(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        _ if seconds.is_multiple_of(86_400) => format!("{}d", seconds / 86_400),
        _ if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        _ => format!("{seconds}s"),
    }
}
