//! Static files beside a real nginx on the same tree: every answer is the same.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;
use std::time::{Duration, SystemTime};

use support::{Dir, Ending, Hopgate, Nginx, Peer};

/// The locations of nginx; `TREE` is the root.
const NGINX: &str = r#"
location / { index index.html index.htm; }
location /img/ { alias TREE/dir/; }
location /al { alias TREE/dir; }
location = /exact { alias TREE/a.txt; }
location ~ ^/u/(.+)$ { alias TREE/$1; }
location ~ ^/v/(?<name>.+)$ { root TREE/dir; try_files /$name =404; }
location /nest/ { alias TREE/dir/; location ~ [.]txt$ { types {} default_type text/nested; } }
location /try/ { try_files $uri $uri/ $uri.html /b.html; }
location /code/ { try_files $uri =503; }
location /empty/ { try_files $uri =204; }
location /named/ { try_files $uri $uri/ @named; }
location @named { return 200 'named $uri $args'; }
location /query/ { try_files $uri /asked?path=$uri&$args; }
location /asked { return 200 'asked $uri $args'; }
location /tryalias/ { alias TREE/dir/; try_files $uri $uri/ /tryalias/none.txt; }
location ~ ^/re/ { alias TREE/dir; try_files /only.txt =404; }
location ~ ^/ree/ { alias TREE/dir; try_files /only.txt =404; error_page 405 =200 /u/a.txt; }
location /nolinks/ { disable_symlinks on; }
location /owner/ { disable_symlinks if_not_owner; }
location /from/ { disable_symlinks on from=$document_root; alias TREE/dirlink/; }
location /before/ { if_modified_since before; }
location /always/ { if_modified_since off; }
location /noetag/ { etag off; }
location /max1/ { max_ranges 1; }
location /max0/ { max_ranges 0; }
location /typed/ { types { text/x-a txt TEXT; } default_type text/x-b; }
location /var/ { root TREE/$arg_d; }
location /page/ { error_page 404 /dir/only.txt; }
location /page200/ { error_page 404 =200 /dir/only.txt; }
location /post/ { error_page 405 =200 /a.txt; }
location /first/ { index $arg_i /a.txt; }
location /names { return 200 '$document_root $realpath_root $request_filename'; }
location /iff/ { if (!-e $request_filename) { rewrite ^ /b.html last; } }
location /said { types { text/x-said said; } return 200 'said'; }
location /broken/ { alias TREE/dir/; rewrite ^/broken/(.*)$ /broken/$1.txt break; }
location /yes/ { auth_request /code/a.txt; alias TREE/dir/; }
location /no/ { auth_request /nolinks/link; alias TREE/dir/; }
location /amiss/ { auth_request /missing; alias TREE/dir/; }
"#;

/// The same, one behind the other, for hopgate.
const HOPGATE: &str = r#"
path = '/'; index = ['index.html', 'index.htm']
path = '/img/'; alias = 'TREE/dir/'
path = '/al'; alias = 'TREE/dir'
path = '= /exact'; alias = 'TREE/a.txt'
path = '~ ^/u/(.+)$'; alias = 'TREE/$1'
path = '~ ^/v/(?<name>.+)$'; root = 'TREE/dir'; try_files = ['/$name', '=404']
path = '/nest/'; alias = 'TREE/dir/'; location = [{ path = '~ [.]txt$', types = {}, default_type = 'text/nested' }]
path = '/try/'; try_files = ['$uri', '$uri/', '$uri.html', '/b.html']
path = '/code/'; try_files = ['$uri', '=503']
path = '/empty/'; try_files = ['$uri', '=204']
path = '/named/'; try_files = ['$uri', '$uri/', '@named']
path = '@named'; return = '200 "named $uri $args"'
path = '/query/'; try_files = ['$uri', '/asked?path=$uri&$args']
path = '/asked'; return = '200 "asked $uri $args"'
path = '/tryalias/'; alias = 'TREE/dir/'; try_files = ['$uri', '$uri/', '/tryalias/none.txt']
path = '~ ^/re/'; alias = 'TREE/dir'; try_files = ['/only.txt', '=404']
path = '~ ^/ree/'; alias = 'TREE/dir'; try_files = ['/only.txt', '=404']; error_page = '405 =200 /u/a.txt'
path = '/nolinks/'; disable_symlinks = 'on'
path = '/owner/'; disable_symlinks = 'if_not_owner'
path = '/from/'; disable_symlinks = 'on from=$document_root'; alias = 'TREE/dirlink/'
path = '/before/'; if_modified_since = 'before'
path = '/always/'; if_modified_since = 'off'
path = '/noetag/'; etag = false
path = '/max1/'; max_ranges = 1
path = '/max0/'; max_ranges = 0
path = '/typed/'; types = { 'text/x-a' = ['txt', 'TEXT'] }; default_type = 'text/x-b'
path = '/var/'; root = 'TREE/$arg_d'
path = '/page/'; error_page = '404 /dir/only.txt'
path = '/page200/'; error_page = '404 =200 /dir/only.txt'
path = '/post/'; error_page = '405 =200 /a.txt'
path = '/first/'; index = ['$arg_i', '/a.txt']
path = '/names'; return = '200 "$document_root $realpath_root $request_filename"'
path = '/iff/'; rewrite = [{ if = '!-e $request_filename', rewrite = ['^ /b.html last'] }]
path = '/said'; types = { 'text/x-said' = 'said' }; return = '200 said'
path = '/broken/'; alias = 'TREE/dir/'; rewrite = ['^/broken/(.*)$ /broken/$1.txt break']
path = '/yes/'; auth_request = '/code/a.txt'; alias = 'TREE/dir/'
path = '/no/'; auth_request = '/nolinks/link'; alias = 'TREE/dir/'
path = '/amiss/'; auth_request = '/missing'; alias = 'TREE/dir/'
"#;

/// Directories with the same in them: one for each location that only changes a setting.
const COPIES: &str = "nolinks owner before always noetag max1 max0 typed try code named query first iff";

const FILES: &str = "index.html dir/index.html dir/only.txt dir/inner/deep.css noindex/x.txt a.txt b.html app.js app.mjs \
    pic.PNG noext a.tar.gz .hidden .hidden.html q?.txt per%cent.txt \u{fc}.txt \"<>.txt end. htm/index.htm \
    site/var/a.txt a.txtx UP.HTML x.unknown filedir/index.html/x";

/// When every file was changed last: its ETag begins with `2ebc98a1`.
const CHANGED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";
const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

/// A tree with a bit of everything, and an outside that links lead to.
fn tree() -> Dir {
    let dir = Dir::new();
    let content: String = (0..100).map(|line| format!("X{line:03}XXXXX\n")).collect();
    for name in FILES.split_whitespace().chain(["sp ace.txt", "d ir/index.html"]) {
        write(&dir, &format!("tree/{name}"), &content);
    }
    for copy in COPIES.split_whitespace() {
        for name in ["a.txt", "p.html", "sub/x.css", "no-type"] {
            write(&dir, &format!("tree/{copy}/{name}"), &content);
        }
        links(&dir, &format!("tree/{copy}"));
    }
    write(&dir, "tree/empty.txt", "");
    write(&dir, "outside.txt", "outside");
    links(&dir, "tree");
    let fifo = Command::new("mkfifo").arg(dir.join("tree/fifo")).status().expect("mkfifo can be run");
    assert!(fifo.success());
    dir
}

/// A link to a file beside it, to one outside, to a directory, to itself, and to nothing.
fn links(dir: &Dir, folder: &str) {
    for (to, name) in [
        (dir.path("tree/a.txt"), "link"),
        (dir.path("outside.txt"), "outside"),
        (dir.path("tree/dir"), "dirlink"),
        ("loop".to_owned(), "loop"),
        ("nowhere".to_owned(), "dangling"),
    ] {
        symlink(to, dir.join(&format!("{folder}/{name}"))).expect("a link can be made");
    }
}

fn write(dir: &Dir, name: &str, content: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("it has one")).expect("a directory can be made");
    fs::write(&path, content).expect("a file can be written");
    let file = File::options().write(true).open(path).expect("it can be opened again");
    let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    file.set_modified(changed).expect("a file has a time");
}

fn hopgate_on(dir: &Dir) -> Hopgate {
    let tree = dir.path("tree");
    let location =
        |line: &str| format!("[[server.location]]\n{}\n", line.replace("; ", "\n").replace("TREE", &tree));
    let locations: String = HOPGATE.trim().lines().map(location).collect();
    Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\nencoded_slashes = 'pass'\nroot = '{tree}'\n\
         default_type = 'application/octet-stream'\n{locations}"
    ))
}

fn nginx_on(dir: &Dir) -> Nginx {
    let tree = dir.path("tree");
    Nginx::start(&format!(
        "include /etc/nginx/mime.types; default_type application/octet-stream;\n\
         server {{ listen 80; root {tree};\n{}}}",
        NGINX.replace("TREE", &tree)
    ))
}

/// Sends every request to both, and collects what they do not agree on.
#[track_caller]
fn compare(requests: &[String]) {
    if !Nginx::is_installed() {
        return;
    }
    assert!(!requests.is_empty());
    let dir = tree();
    compare_with(&nginx_on(&dir), &hopgate_on(&dir), requests);
}

#[track_caller]
fn compare_with(nginx: &Nginx, hopgate: &Hopgate, requests: &[String]) {
    let mut differences = String::new();
    for request in requests {
        let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
        let fields: String = rest.lines().map(|line| format!("{line}\r\n")).collect();
        let whole = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
        let address = nginx.addr().parse().expect("nginx listens on an address");
        let expected = outcome(hopgate.connect_to(address), &whole);
        let expected = expected.replace(nginx.addr().rsplit(':').next().unwrap_or_default(), "PORT");
        let got = outcome(hopgate.connect(), &whole).replace(&hopgate.addr().port().to_string(), "PORT");
        if expected != got {
            differences += &format!("---- {request}\nnginx:\n{expected}\nhopgate:\n{got}\n");
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

/// The part of an answer that both must agree on.
#[track_caller]
fn outcome(mut peer: Peer, request: &str) -> String {
    peer.send(request);
    let head = peer.head();
    let (body, ending) = peer.read_to_end();
    assert_eq!(ending, Ending::Fin, "{request}");
    let status = head.status();
    // A page of its own has its own words.
    let is_own = status >= 300 && head.field("ETag").is_none();
    let mut lines = vec![status.to_string()];
    let told = if is_own { 2.. } else { 0.. };
    let names = [
        "Content-Type",
        "Content-Length",
        "Last-Modified",
        "ETag",
        "Accept-Ranges",
        "Content-Range",
        "Location",
    ];
    for name in &names[told] {
        lines.extend(head.field(name).map(|value| format!("{name}: {value}")));
    }
    let mut text = lines.join("\n") + "\n\n";
    if !is_own || request.starts_with("HEAD") {
        text += &String::from_utf8_lossy(&body);
    }
    match head.field("Content-Type").and_then(|value| value.split_once("boundary=")) {
        Some((_, boundary)) => text.replace(boundary, "BOUNDARY"),
        None => text,
    }
}

/// Every method with every target, both separated by blanks.
fn with_each(methods: &str, targets: &str) -> Vec<String> {
    let each = |method| targets.split_whitespace().map(move |target| format!("{method} {target}"));
    methods.split_whitespace().flat_map(each).collect()
}

#[test]
fn files_directories_and_what_is_neither_are_answered_as_by_nginx() {
    let all = "GET HEAD POST PUT DELETE OPTIONS PROPFIND";
    let few = "/ /a.txt /a.txt?x=1 /empty.txt /dir /dir?x=1 /dir/ /dir/?x=1 /noindex /noindex/";
    let many = "/app.js /app.css /pic.PNG /noext /a.tar.gz /.hidden /.hidden.html /end. /a.txtx /UP.HTML /x.unknown \
        /b.html /missing /missing/ /missing/x.txt /a.txt/ /a.txt/x /htm/ /htm /filedir/ /filedir /fifo /link /outside \
        /dirlink /dirlink/ /dirlink/only.txt /loop /loop/ /dangling /dir/inner /dir/inner/ /dir/inner/deep.css";
    compare(&[with_each(all, few), with_each("GET POST", many)].concat());
}

#[test]
fn odd_paths_are_answered_as_by_nginx() {
    let long = format!("/{0} /{0}/", "x".repeat(300));
    let odd = "/sp%20ace.txt /q%3F.txt /per%25cent.txt /%C3%BC.txt /\u{fc}.txt /%22%3C%3E.txt /d%20ir /d%20ir/ \
        /d%20ir?a=%20b //a.txt /dir//only.txt /dir/../a.txt /dir/./only.txt /./a.txt /../a.txt /%2e%2e/a.txt \
        /dir/%2e%2e/a.txt /../outside.txt /dir/../../outside.txt /%2e%2e/outside.txt /.. /dir/.. /dir/. \
        /dir%2fonly.txt /dir%5conly.txt /a.txt%00 /a.txt%00.html /a%2etxt /%61.txt /a.txt%20 /... /.../a.txt";
    compare(&[with_each("GET HEAD", odd), with_each("GET HEAD", &long)].concat());
}

#[test]
fn paths_put_together_at_random_are_answered_as_by_nginx() {
    const PIECES: &str = "/ / / / / .. . %2e // %20 ?x=1 a.txt b.html index.html dir inner only.txt link dirlink loop \
        outside noindex d%20ir img al u v try tryalias code named re nolinks owner from var sub exact fifo x .hidden \
        %3F q%3F.txt";
    let pieces: Vec<&str> = PIECES.split_whitespace().collect();
    let mut random = fastrand::Rng::with_seed(3);
    let target = || {
        let pieces: Vec<&str> =
            (0..random.usize(1..9)).map(|_| pieces[random.usize(..pieces.len())]).collect();
        format!("/{}", pieces.concat())
    };
    let targets = std::iter::repeat_with(target);
    let methods = ["GET", "HEAD", "POST"].into_iter().cycle();
    let requests = methods.zip(targets).map(|(method, target)| format!("{method} {target}"));
    compare(&requests.take(2000).collect::<Vec<_>>());
}

#[test]
fn aliases_and_what_is_tried_are_found_as_by_nginx() {
    let targets = "/img/ /img /img/only.txt /img/inner /img/inner/ /img/inner/deep.css /img/none /img//only.txt \
        /al /al/ /al/only.txt /al/inner /al/none /exact /exact/ /u/a.txt /u/dir /u/dir/ /u/dir/only.txt /u/none /u/ \
        /v/only.txt /v/none /v/inner /nest/only.txt /nest/inner/deep.css /nest/ \
        /try/a.txt /try/p /try/sub /try/sub/ /try/none /try/ /try/dangling /try/loop /try/link \
        /code/a.txt /code/none /code/sub /code/sub/ /empty/none /named/a.txt /named/none?x=1 /named/sub /named/sub/ \
        /query/none?b=2 /query/a.txt?b=2 /tryalias/only.txt /tryalias/inner /tryalias/inner/ /tryalias/x /tryalias/ \
        /re/any /re/ /ree/";
    compare(&with_each("GET HEAD POST", targets));
}

#[test]
fn variables_steps_error_pages_and_subrequests_go_with_files_as_in_nginx() {
    let targets = "/var/a.txt?d=site /var/a.txt?d= /var/a.txt?d=none /first/?i=a.txt /first/?i=none /first/?i=sub \
        /first/?i=/b.html /first/ /first/sub/ /names /names/x /names?d=1 /page/none /page/none?x /page200/none \
        /broken/only /iff/a.txt /iff/none /iff/sub /iff/sub/ /said /said/x.said /said/x.other \
        /yes/only.txt /yes/none /no/only.txt /amiss/only.txt";
    let conditional = with_each("GET", "/yes/only.txt /no/only.txt");
    let conditional =
        conditional.iter().map(|request| format!("{request}\nIf-None-Match: *\nRange: bytes=0-1"));
    compare(
        &[with_each("GET", targets), with_each("POST PUT", "/post/none"), conditional.collect()].concat(),
    );
}

#[test]
fn symbolic_links_are_followed_or_refused_as_by_nginx() {
    let names = [
        "a.txt",
        "link",
        "outside",
        "dirlink",
        "dirlink/",
        "dirlink/only.txt",
        "loop",
        "dangling",
        "",
        "sub/",
    ];
    let targets = |location: &str| names.map(|name| format!("GET {location}{name}")).to_vec();
    let from = with_each("GET", "/from/only.txt /from/ /from/inner /from/inner/deep.css");
    compare(&[targets("/nolinks/"), targets("/owner/"), targets("/"), from].concat());
}

#[test]
fn types_and_settings_are_told_as_by_nginx() {
    let targets =
        "/typed/a.txt /typed/p.html /typed/no-type /noetag/a.txt /max0/a.txt /max1/a.txt /before/a.txt";
    compare(&with_each("GET HEAD", targets));
}

#[test]
fn conditions_are_judged_as_by_nginx() {
    let mut requests = Vec::new();
    let tag = "\"2ebc98a1-3e8\"";
    let dates =
        [CHANGED, LATER, EARLIER, "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "never", ""];
    let tags = [tag, "*", "\"x\"", &format!("W/{tag}"), &format!("\"x\", {tag}"), "\"2ebc98a1-3e8", ""];
    for path in ["/a.txt", "/before/a.txt", "/always/a.txt", "/noetag/a.txt", "/missing", "/dir", "/dir/"] {
        for date in dates {
            requests.push(format!("GET {path}\nIf-Modified-Since: {date}"));
            requests.push(format!("HEAD {path}\nIf-Unmodified-Since: {date}"));
        }
        for tag in tags {
            requests.push(format!("GET {path}\nIf-None-Match: {tag}"));
            requests.push(format!("GET {path}\nIf-Match: {tag}"));
        }
        requests.push(format!("GET {path}\nIf-None-Match: {tag}\nIf-Modified-Since: {EARLIER}"));
        requests.push(format!("GET {path}\nIf-None-Match: \"x\"\nIf-Modified-Since: {CHANGED}"));
        requests.push(format!("GET {path}\nIf-None-Match: {tag}\nIf-Match: {tag}"));
        requests.push(format!("GET {path}\nIf-Match: \"x\"\nIf-None-Match: {tag}"));
    }
    // An error page is no answer that a condition is about, unless it stands for one.
    for path in ["/page/none", "/page200/none"] {
        requests.push(format!("GET {path}\nIf-None-Match: {tag}"));
        requests.push(format!("GET {path}\nRange: bytes=0-1"));
    }
    compare(&requests);
}

#[test]
fn ranges_are_cut_as_by_nginx() {
    let ranges = "0-8|-10|990-|990-1990|0-|-0|1000-|999-|0-0|8-5|alpha|10-alpha|10|-||0-9, -10|0-9, -10, 10-19|\
        0-9,-10,5000-|0-10001,0-0|10-11 12-| 0 - 8 |0-1,|,0-1|-5000|5-4,0-1|99999999999999999999-|0-1,0-1|0-499,500-999";
    let mut requests = Vec::new();
    for path in ["/a.txt", "/empty.txt", "/max1/a.txt", "/max0/a.txt", "/missing", "/dir/"] {
        requests.extend(ranges.split('|').map(|range| format!("GET {path}\nRange: bytes={range}")));
    }
    requests
        .extend(["HEAD /a.txt\nRange: bytes=0-8", "HEAD /a.txt\nRange: bytes=0-8,20-30"].map(str::to_owned));
    requests.extend(["GET /a.txt\nRange: lines=0-8", "GET /a.txt\nRANGE: BYTES=0-8"].map(str::to_owned));
    for if_range in ["\"2ebc98a1-3e8\"", "\"x\"", "W/\"2ebc98a1-3e8\"", CHANGED, LATER, EARLIER, "x", ""] {
        requests.push(format!("GET /a.txt\nRange: bytes=0-8\nIf-Range: {if_range}"));
        requests.push(format!("GET /noetag/a.txt\nRange: bytes=0-8\nIf-Range: {if_range}"));
        requests.push(format!("GET /a.txt\nRange: bytes=5000-\nIf-Range: {if_range}"));
    }
    requests.push(format!("GET /a.txt\nRange: bytes=0-8\nIf-Modified-Since: {CHANGED}"));
    requests.push("GET /a.txt\nRange: bytes=0-8\nIf-Match: \"x\"".to_owned());
    compare(&requests);
}

#[test]
fn every_known_extension_has_the_type_that_it_has_with_nginx() {
    if !Nginx::is_installed() {
        return;
    }
    let types = fs::read_to_string("/etc/nginx/mime.types").expect("nginx brings its types along");
    let words = types.split_whitespace().filter(|word| *word != "types" && !word.contains(['/', '{', '}']));
    let extensions: Vec<&str> = words.map(|word| word.trim_end_matches(';')).collect();
    assert!(extensions.len() > 80, "{extensions:?}");
    let dir = Dir::new();
    for extension in &extensions {
        write(&dir, &format!("tree/x.{extension}"), "");
    }
    let requests = extensions.iter().map(|extension| format!("GET /x.{extension}")).collect::<Vec<_>>();
    compare_with(&nginx_on(&dir), &hopgate_on(&dir), &requests);
}

#[test]
fn a_server_without_locations_serves_its_root_as_nginx_does() {
    if !Nginx::is_installed() {
        return;
    }
    let dir = tree();
    let root = dir.path("tree");
    let nginx = Nginx::start(&format!(
        "include /etc/nginx/mime.types; server {{ listen 80; root {root}; try_files $uri $uri/ /b.html; \
         location = /own {{ return 204; }} }}"
    ));
    let hopgate = Hopgate::start(&format!(
        "workers = 1\n[[server]]\nlisten = '127.0.0.1:0'\nroot = '{root}'\ndefault_type = 'text/plain'\n\
         try_files = ['$uri', '$uri/', '/b.html']\n[[server.location]]\npath = '= /own'\nreturn = '204'\n"
    ));
    let mut requests = with_each("GET HEAD", "/ /a.txt /dir /dir/ /no/such/page /own /noindex/");
    requests.push("GET /a.txt\nRange: bytes=1-2".to_owned());
    compare_with(&nginx, &hopgate, &requests);
}
