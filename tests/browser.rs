//! The demo page in a real browser: its WebSocket, its server-sent events, its JSON.

mod support;

use support::{Hopgate, run_node_script};

#[test]
fn chromium_uses_the_demo_page_through_hopgate() {
    let hopgate = Hopgate::quick(&["demo", "--listen", "127.0.0.1:0"]);
    let line = hopgate.wait_for_access("http://");
    let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("a word with the URL");

    run_node_script("browser.js", url);
}
