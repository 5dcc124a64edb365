//! The demo page in a real browser: its WebSocket, its server-sent events, its JSON.

mod support;

use support::{Hopgate, run_node_script};

#[test]
fn chromium_uses_the_demo_page_through_hopgate() {
    let hopgate = Hopgate::quick(&["demo", "--listen", "127.0.0.1:0"]);
    let url = format!("http://{}/", hopgate.addr());
    hopgate.wait_for_access(&url); // printed for the newcomer

    run_node_script("browser.js", &url);
}
