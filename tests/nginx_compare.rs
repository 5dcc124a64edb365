//! What people have in their nginx files, run by nginx, then imported and run by hopgate: the app is asked the same,
//! and clients are answered the same. Where hopgate does better, the request says so.

mod support;

#[path = "nginx/compare.rs"]
mod compare;

use compare::{ask, compare, compare_with, get, post, websocket};

// The configurations of articles on WebSocket with nginx.

#[test]
fn a_plain_location_speaks_websocket_here_and_not_with_nginx() {
    compare(
        "articles/plain-location.conf",
        &[
            get("/"),
            get("/page?a=%20b"),
            get("/a%20b/../c"),
            post("/form", "name=value"),
            get("/missing?status=404"),
            get("/away?status=302&header=Location:/here"),
            websocket("/").only_here(),
            websocket("/any/path").only_here(),
        ],
    );
}

#[test]
fn a_location_for_websocket_needs_to_be_none() {
    compare(
        "articles/websocket-location.conf",
        &[
            get("/"),
            get("/ws/something"),
            get("/ws"),
            get("/wsx"),
            websocket("/ws/something"),
            websocket("/ws/?token=1"),
            websocket("/ws/no?refuse=403"),
            websocket("/").only_here(),
        ],
    );
}

#[test]
fn a_map_for_the_connection_field_is_needless() {
    let host = "demo.example.com";
    compare(
        "articles/upgrade-map.conf",
        &[
            get("/").host(host).over_tls(),
            get("/some/page").host("other.example.com").over_tls(),
            post("/form", "x").host(host).over_tls(),
            websocket("/").host(host).over_tls(),
            websocket("/some/page?protocol=chat")
                .host(host)
                .field("Sec-WebSocket-Protocol: chat, other")
                .over_tls(),
            websocket("/no?refuse=401").host(host).over_tls(),
            // Plain HTTP on the port of TLS.
            get("/").host(host).at_second_address(),
        ],
    );
}

#[test]
fn one_path_is_for_websocket_and_all_others_are_nowhere() {
    compare(
        "articles/one-path.conf",
        &[
            get("/websocket"),
            get("/websocket/room?x=1").host("chat.example.com:8000"),
            get("/"),
            get("/web"),
            websocket("/websocket"),
            websocket("/websocket/room").host("chat.example.com"),
            websocket("/").host("chat.example.com"),
        ],
    );
}

#[test]
fn two_servers_take_turns_with_requests_and_with_websockets() {
    compare(
        "articles/two-servers.conf",
        &[
            get("/websocket"),
            get("/websocket"),
            websocket("/websocket"),
            get("/websocket"),
            websocket("/websocket"),
            websocket("/websocket"),
            get("/else"),
        ],
    );
}

#[test]
fn a_bare_location_is_a_configuration() {
    compare_with(
        "articles/bare-location.conf",
        |site| format!("server {{ listen ADDRESS; {site} }}"),
        &[get("/wsapp/"), get("/wsapp"), get("/"), websocket("/wsapp/"), websocket("/wsapp/a/b?c")],
    );
}

#[test]
fn a_whole_file_is_read_as_well_as_a_server() {
    compare_with(
        "articles/whole-http.conf",
        |site| {
            let inside = site.split_once("http {").expect("an http block").1;
            inside.rsplit_once('}').expect("its end").0.to_owned()
        },
        &[
            get("/").over_tls(),
            get("/a?b").over_tls(),
            websocket("/").over_tls(),
            websocket("/chat").over_tls(),
        ],
    );
}

#[test]
fn a_chat_behind_a_rewrite_a_page_with_a_router_and_pages_for_errors() {
    compare(
        "articles/chat.conf",
        &[
            get("/"),
            get("/index.html"),
            get("/devices/7"),
            get("/docs"),
            get("/docs/"),
            get("/static/app.css"),
            get("/static/app.css").field("Range: bytes=0-3"),
            ask("HEAD", "/logo.svg"),
            post("/", "x").better("a 405 says which methods are allowed, RFC 9110 §15.5.6"),
            get("/api/chat/rooms/1?a=b"),
            get("/api/chat/rooms%2F1/%20x"),
            get("/api/chat"),
            get("/api/chat/").field("X-Forwarded-For: 203.0.113.9"),
            get("/api/private/x"),
            get("/api/private/x?status=401").host("chat.example.com"),
            get("/api/private/x?status=500"),
            get("/api/private/x?status=404"),
            get("/nobody/x"),
            get("/50x.html"),
            websocket("/api/chat/ws"),
            websocket("/api/chat/a/b?c=d"),
            get("/").over_tls(),
            get("/api/chat/rooms").over_tls(),
            websocket("/api/chat/ws").over_tls(),
        ],
    );
}

#[test]
fn two_services_and_a_front_end_and_the_websocket_of_one() {
    compare(
        "articles/two-services.conf",
        &[
            get("/apiv1/users?id=1"),
            get("/apiv2/users").field("X-Forwarded-For: 203.0.113.9, 198.51.100.2"),
            post("/apiv2/users", "{}"),
            get("/apiv1"),
            get("/apiv2?x"),
            get("/apiv3/"),
            get("/"),
            get("/ws/"),
            websocket("/ws/"),
            websocket("/ws/room/1?a=b"),
            websocket("/apiv2/socket").only_here(),
            websocket("/").only_here(),
        ],
    );
}

#[test]
fn two_services_have_websocket_before_anybody_thought_of_it() {
    compare(
        "articles/two-services-before.conf",
        &[
            get("/apiv1/users"),
            get("/apiv2/users"),
            get("/ws/"),
            websocket("/ws/").only_here(),
            websocket("/apiv2/socket").only_here(),
        ],
    );
}

// The shapes that apps are put behind.

#[test]
fn a_site_with_tls_and_members_with_certificates() {
    let (safe, members, some) = ("safe.example.com", "members.example.com", "some.example.com");
    compare(
        "apps/tls.conf",
        &[
            get("/x?y").host(safe),
            get("/x").host("www.safe.example.com"),
            get("/x").host("else.example.com"),
            get("/").host(safe).over_tls(),
            get("/page?x=1").host(safe).over_tls(),
            post("/form", "name=value").host(safe).over_tls(),
            get("/page").host("www.safe.example.com").over_tls(),
            get("/page").host("else.example.com").over_tls(),
            get("/here").host(safe).over_tls(),
            get("/gone?status=404").host(safe).over_tls(),
            get("/again/x?y").host(safe).over_tls(),
            get("/verified/x").host(safe).over_tls(),
            get("/refused/x").host(safe).over_tls(),
            websocket("/socket").host(safe).over_tls(),
            websocket("/again/socket").host(safe).over_tls().only_here(),
            // Plain HTTP where TLS is spoken.
            get("/plain?x").host(safe).at_second_address(),
            get("/").host(members).over_tls(),
            get("/x").host(members).certificate("member"),
            get("/x").host(members).certificate("stranger"),
            websocket("/x").host(members).certificate("member").only_here(),
            get("/").host(some).over_tls(),
            get("/").host(some).certificate("member"),
            get("/").host(some).certificate("stranger"),
            get("/members/").host(some).over_tls(),
            get("/members/").host(some).certificate("member"),
        ],
    );
}

#[test]
fn a_node_app_with_static_files() {
    let host = "shop.example.com";
    let gzip = "Accept-Encoding: gzip";
    compare(
        "apps/node.conf",
        &[
            get("/").host(host),
            get("/cart?x=1").host("www.shop.example.com"),
            get("/cart").host("else.example.com"),
            post("/cart", "item=1").host(host),
            get("/static/app.js").host(host),
            get("/static/app.js").host(host).field(gzip),
            get("/static/app.css").host(host).field(gzip),
            get("/static/none.css").host(host),
            get("/static/../favicon.ico").host(host),
            get("/favicon.ico").host(host),
            get("/.git/config").host(host),
            get("/a/.env").host(host),
            get("/.well-known/x").host(host),
            get("/down/x").host(host),
            get("/502.html").host(host),
            get("/big?type=text/plain").host(host).field(gzip).field(&format!("X-Long: {}", "x".repeat(300))),
            get("/error?status=500").host(host),
            get("/gone?status=404&header=X-Frame-Options:DENY").host(host),
            websocket("/").host(host),
            websocket("/live?x").host(host),
            websocket("/static/ws").host(host),
        ],
    );
}

#[test]
fn socket_io_on_several_processes() {
    let host = "io.example.com";
    let mut asks = vec![
        get("/").host(host),
        get("/socket.io/?EIO=4&transport=polling").host(host),
        post("/socket.io/?EIO=4&transport=polling&sid=x", "40").host(host),
        websocket("/socket.io/?EIO=4&transport=websocket").host(host),
        get("/socket.io").host(host),
    ];
    for sid in ["a", "b", "c", "kWj4", "x9_-Q", "0", "zzzz", "lPq2"] {
        asks.push(get(&format!("/session/x?sid={sid}")).host("io.example.com:8080"));
    }
    asks.push(websocket("/session/x?sid=b").host(host).only_here());
    compare("apps/socketio.conf", &asks);
}

#[test]
fn next_js_with_its_files_on_the_disk() {
    let host = "next.example.com";
    compare(
        "apps/nextjs.conf",
        &[
            get("/").host(host),
            get("/shop/1?x=%20").host(host),
            get("/_next/static/app.js").host(host),
            get("/_next/static/none.js").host(host),
            get("/logo.svg").host(host),
            get("/robots.txt").host(host),
            get("/missing.svg?header=X-Powered-By:Next.js").host(host),
            get("/image?type=image/png&header=X-Powered-By:Next.js").host(host),
            get("/_next/webpack-hmr").host(host),
            websocket("/_next/webpack-hmr?id=1").host(host),
            websocket("/").host(host).only_here(),
        ],
    );
}

#[test]
fn vite_in_development_and_what_it_has_built() {
    let (dev, built) = ("dev.example.com", "app.example.com");
    compare(
        "apps/vite.conf",
        &[
            get("/").host(dev),
            get("/@vite/client").host(dev),
            get("/src/main.js?t=1").host(dev),
            get("/api/users?x=1").host(dev),
            get("/api/away?status=302&header=Location:http://127.0.0.1:3001/x").host(dev),
            get("/api").host(dev),
            websocket("/?token=1").host(dev).field("Sec-WebSocket-Protocol: vite-hmr"),
            websocket("/src/ws").host(dev).only_here(),
            get("/").host(built),
            get("/settings/profile").host(built),
            get("/docs").host(built),
            get("/static/app.css").host(built),
            get("/static/none.css").host(built),
            get("/static/app.js.map").host(built),
            get("/api/x?header=Set-Cookie:a=b;%20Path=/;%20Domain=localhost").host(built),
            get("/apix").host(built),
        ],
    );
}

#[test]
fn home_assistant_with_doors_that_are_closed() {
    let host = "hass.example.com";
    compare(
        "apps/home-assistant.conf",
        &[
            get("/").host(host),
            get("/auth?status=302&header=Location:http://hass.example.com/x").host(host),
            get("/auth?status=302&header=Location:/x").host(host),
            get("/api/websocket").host(host),
            get("/local/x.js").host(host),
            get("/hacs/x.js").host(host),
            get("/hacs").host(host).field("X-Forwarded-For: 192.168.1.1"),
            websocket("/api/websocket").host(host),
            websocket("/api/websocket/x?y").host(host),
            websocket("/else").host(host),
            websocket("/hacs/ws").host(host),
            websocket("/local/ws").host(host).only_here(),
        ],
    );
}

#[test]
fn jupyter_with_kernels_and_terminals() {
    let host = "ada.lab.example.com";
    compare(
        "apps/jupyter.conf",
        &[
            get("/").host(host),
            get("/jupyter").host(host),
            get("/jupyter/tree?x=1").host(host),
            get("/jupyter/tree").host("ada.lab.example.com:8000"),
            get("/jupyter/api/kernels/1-2/channels").host(host),
            get("/.well-known/proof").host(host),
            get("/jupyter/down?status=503").host(host),
            get("/busy.html").host(host),
            websocket("/jupyter/api/kernels/1-2/channels?session_id=3").host(host),
            websocket("/JUPYTER/terminals/websocket/1").host(host),
            websocket("/jupyter/terminals/websocket/1").host(host),
            websocket("/jupyter/else").host(host).only_here(),
        ],
    );
}

#[test]
fn grafana_live_at_the_root_and_under_a_prefix() {
    let (root, prefix) = ("grafana.example.com", "tools.example.com");
    compare(
        "apps/grafana.conf",
        &[
            get("/").host(root),
            get("/d/1?orgId=1").host(root),
            get("/api/live/ws").host(root),
            websocket("/api/live/ws").host(root),
            websocket("/else").host(root).only_here(),
            get("/grafana/d/1?orgId=1").host(prefix),
            get("/grafana").host(prefix),
            get("/grafana?x=1").host(prefix),
            get("/dash/7").host(prefix),
            get("/dash/a%20b%2fc?x=1").host(prefix),
            get("/old/7").host(prefix),
            get("/old/7?x=1").host(prefix),
            get("/else").host(prefix),
            websocket("/grafana/api/live/ws?x=1").host(prefix),
        ],
    );
}

#[test]
fn code_server_behind_a_password() {
    let host = "code.example.com";
    let signed_in = |who: &str| format!("Authorization: Basic {who}");
    // ada:lovelace, alan:turing, grace:hopper, edsger:dijkstra; and a wrong password, nobody, and no colon
    let (ada, alan, grace, edsger) =
        ("YWRhOmxvdmVsYWNl", "YWxhbjp0dXJpbmc=", "Z3JhY2U6aG9wcGVy", "ZWRzZ2VyOmRpamtzdHJh");
    let (wrong, nobody, broken) = ("YWRhOnR1cmluZw==", "bm9ib2R5Og==", "YWRh");
    let mut asks = vec![
        get("/").host(host),
        get("/healthz").host(host),
        websocket("/stable-1/ws").host(host),
        websocket("/stable-1/ws").host(host).field(&signed_in(ada)),
        websocket("/stable-1/ws").host(host).field(&signed_in(wrong)),
        get("/intern/x").host(host),
        get("/").host(host).field("Authorization: Bearer x"),
        websocket("/healthz").host(host).only_here(),
    ];
    asks.extend([ada, alan, grace, edsger, wrong, nobody, broken].map(|who| {
        get("/file?folder=/home").host(host).field(&signed_in(who)).field("Accept-Encoding: br, gzip")
    }));
    compare("apps/code-server.conf", &asks);
}

#[test]
fn rails_with_action_cable() {
    let host = "rails.example.com";
    compare(
        "apps/rails-cable.conf",
        &[
            get("/").host(host),
            get("/docs").host(host),
            get("/posts/1?x=1").host(host),
            post("/posts", "title=x").host(host),
            ask("PROPFIND", "/posts").host(host),
            get("/assets/app.js").host(host),
            get("/assets/none.js").host(host),
            get("/robots.txt").host(host),
            get("/500.html").host(host),
            get("/posts?status=500").host(host),
            websocket("/cable").host(host),
            websocket("/posts").host(host).only_here(),
            get("/cable").host(host).better("a request that asks for no upgrade is passed on as none"),
        ],
    );
}

#[test]
fn phoenix_with_channels_and_a_patient_login() {
    let host = "phoenix.example.com";
    compare(
        "apps/phoenix.conf",
        &[
            get("/").host(host),
            get("/").host("phx.example.com"),
            get("/x").host("a.b.phx.example.com:4000"),
            websocket("/live/websocket?vsn=2.0.0").host(host),
            websocket("/socket/websocket").host(host),
            websocket("/else/websocket").host(host),
            get("/login").host(host),
            get("/login").host(host),
            get("/login").host(host),
            get("/login").host(host),
            get("/login").host(host),
            get("/after").host(host),
        ],
    );
}

#[test]
fn an_app_behind_another_that_knows_who_has_signed_in() {
    let host = "intern.example.com";
    compare(
        "apps/signed-in.conf",
        &[
            get("/").host(host).field("Cookie: auth=204; user=ada"),
            get("/page?x=1").host(host).field("Cookie: user=ada"),
            post("/form", "x=1").host(host).field("Cookie: auth=202; user=ada"),
            get("/page?x=1").host(host).field("Cookie: auth=401"),
            get("/page").host(host).field("Cookie: auth=403"),
            get("/page").host(host).field("Cookie: auth=500"),
            post("/form", "x=1").host(host).field("Cookie: auth=401"),
            get("/oauth2/auth").host(host),
            get("/oauth2/start?rd=/page").host(host),
            websocket("/ws").host(host).field("Cookie: auth=200; user=ada"),
            websocket("/ws?x=1").host(host).field("Cookie: auth=401"),
        ],
    );
}

#[test]
fn many_apps_by_name_with_addresses_made_of_variables() {
    let music = "music.example.com";
    compare(
        "apps/containers.conf",
        &[
            get("/a%20b?x=1").host(music),
            get("/rest/x").host("music.home"),
            get("/music/rest").host(music),
            websocket("/ws").host(music),
            websocket("/rest").host(music),
            get("/").host("wiki.example.com"),
            get("/").host("WIKI.example.com").field("User-Agent: curl"),
            get("/").host("x.y.beta.example.com").field("User-Agent: Wget/1"),
            get("/?page=2").host("x.y.beta.example.com").field("Cookie: session=abc"),
            get("/").host("mail.example.org"),
            get("/").host("ada.tenants.example.com"),
            get("/").host("else.example.com"),
            get("/ws").host("wiki.example.com"),
            websocket("/ws/1?x=y").host("wiki.example.com"),
            websocket("/ws").host("else.example.com"),
            websocket("/page").host("mail.example.org").only_here(),
        ],
    );
}
