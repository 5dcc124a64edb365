//! gRPC: a real client and a real server, alone and through nginx.

mod support;

use support::{Nginx, NodeApp, run_node_script};

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
