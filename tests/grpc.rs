//! gRPC through hopgate: a real client and a real server, and nginx in hopgate's place for comparison.

mod support;

use support::{Hopgate, Nginx, NodeApp, run_node_script};

/// Every kind of call, with metadata, statuses, large messages, deadlines and cancellation.
const CLIENT: &str = "grpc-client.js";

#[test]
fn the_client_and_the_server_understand_each_other() {
    let server = NodeApp::speaking_grpc();
    run_node_script(CLIENT, &format!("http://{}", server.addr()));
}

#[test]
fn grpc_goes_through_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let server = NodeApp::speaking_grpc();
    let nginx = Nginx::start(&format!(
        "server {{ listen 80 http2; client_max_body_size 0; location / {{ grpc_pass grpc://{}; }} }}",
        server.addr()
    ));
    run_node_script(CLIENT, &format!("http://{}", nginx.addr()));
}

#[test]
fn grpc_goes_through_hopgate() {
    let server = NodeApp::speaking_grpc();
    let hopgate = Hopgate::start(&format!(
        r#"
        [[server]]
        listen = "127.0.0.1:0 http2"

        [[server.location]]
        path = "/"
        proxy_pass = "http://{}"
        proxy_http_version = "2"
        "#,
        server.addr()
    ));
    run_node_script(CLIENT, &format!("http://{}", hopgate.addr()));
}
