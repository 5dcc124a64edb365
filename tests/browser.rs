//! Real browsers: the demo page, with its WebSocket, its server-sent events and its JSON, and WebSockets over HTTP/2.

mod support;

use support::{Hopgate, NodeApp, run_node_script};

#[test]
fn chromium_uses_the_demo_page_through_hopgate() {
    let hopgate = Hopgate::quick(&["demo", "--listen", "127.0.0.1:0"]);
    let url = format!("http://{}/", hopgate.addr());
    hopgate.wait_for_access(&url); // printed for the newcomer

    run_node_script("browser.js", &url);
}

#[test]
fn chromium_uses_the_demo_page_over_tls() {
    let hopgate = Hopgate::quick(&["demo", "--tls", "--listen", "127.0.0.1:0"]);
    let url = format!("https://{}/", hopgate.addr());
    hopgate.wait_for_access(&url);

    run_node_script("browser.js", &url);
}

#[test]
fn chromium_and_firefox_open_websockets_on_the_connection_of_the_page() {
    let app = NodeApp::echoing_on(1);
    let hopgate = Hopgate::start(&format!(
        r#"
        access_log = "stdout told"
        [log_format]
        told = "$remote_port $server_protocol $ssl_alpn_protocol $status $request_uri $tunnel_event"
        [[server]]
        listen = "127.0.0.1:0 ssl"
        tls = "self-signed"
        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        "#,
        app.addr()
    ));

    run_node_script("browser-http2.js", &format!("https://localhost:{}", hopgate.addr().port()));

    for browser in ["chromium", "firefox"] {
        let end = hopgate.wait_for_access(&format!("/socket?browser={browser} end"));
        let page = hopgate.wait_for_access(&format!("/page?type=text/html&browser={browser}"));
        let (port, rest) = page.split_once(' ').unwrap();
        assert!(rest.starts_with("HTTP/2.0 h2 200 /page"), "{page}");
        assert!(end.starts_with(&format!("{port} HTTP/2.0 h2 101 /socket?browser={browser} end ")), "{end}");
    }
}
