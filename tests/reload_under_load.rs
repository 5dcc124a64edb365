//! Two thousand tunnels, requests and downloads go on while the configuration changes under them, and no byte is lost;
//! nothing of the configurations that are gone stays.

mod support;

use std::io::{self, Error, ErrorKind};
use std::net::SocketAddr;
use std::process::{self, Command};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use support::{Authority, Dir, Hopgate, Noise, eventually, free_addr};

const RAW_TUNNELS: usize = 1000;
const WEBSOCKETS: usize = 1000;
const KEPT_ALIVE: usize = 16;
const ONE_BY_ONE: usize = 8;
const DOWNLOADS: usize = 8;
const CLIENTS: usize = RAW_TUNNELS + WEBSOCKETS + KEPT_ALIVE + ONE_BY_ONE + DOWNLOADS;

const RELOADS: usize = 200;
/// After so many reloads every client must have been through a round.
const RELOADS_A_ROUND: usize = 40;
/// After so many, whatever is kept from one configuration to the next is there.
const WARM_UP: usize = 40;
/// Far less than what 160 configurations of this size take, and far more than a heap moves by itself.
const MOST_GROWTH_KIB: usize = 8 << 10;
/// For each wait of the test: far more than a slow machine needs for one round of all clients.
const PATIENCE: Duration = Duration::from_secs(30);
/// More than fits into the sockets' buffers, so that some of it is always within hopgate.
const LARGEST: usize = 16 << 10;
const NOISE: usize = 1 << 20;

#[test]
fn two_thousand_tunnels_and_requests_go_through_two_hundred_reloads_and_nothing_is_lost_or_kept() {
    allow_open_files(16384);
    let world = World::new();
    let (load, upstreams) = Load::prepare();
    let hopgate = Hopgate::start(&world.config(0, upstreams));
    // Each kind of address was there once, and those of the last configuration are there.
    for n in [1, RELOADS] {
        hopgate.reload_with(&world.config(n, upstreams));
    }
    let idle = settled(&hopgate);
    let mut load = load.start(world.addrs[0]);
    load.wait_for_a_round_of_every_client();

    let mut warm = 0;
    for n in 1..=RELOADS {
        hopgate.reload_with(&world.config(n, upstreams));
        if n % RELOADS_A_ROUND == 0 {
            load.wait_for_a_round_of_every_client();
            assert_eq!(hopgate.get("/config").1, format!("config {n}"));
        }
        if n == WARM_UP {
            warm = hopgate.resident_kib();
        }
    }
    expect_no_growth("reloads", warm, hopgate.resident_kib());
    assert_eq!(hopgate.access_lines(" end cause=").len(), 0, "a tunnel ended before its client wanted it to");

    load.finish();
    // One line for each tunnel, and the cause is the client's end of the conversation.
    eventually("every tunnel has ended", || {
        hopgate.access_lines(" end cause=").len() >= RAW_TUNNELS + WEBSOCKETS
    });
    let raw = hopgate.access_lines("GET /raw ");
    let ended: Vec<&String> = raw.iter().filter(|line| line.contains(" end cause=client_closed ")).collect();
    assert_eq!(ended.len(), RAW_TUNNELS, "{:?}", raw.last());
    for line in ended {
        assert_eq!(
            number(line, " sent="),
            number(line, " received="),
            "an echo has as many bytes as its call: {line}"
        );
    }

    let warm = hopgate.resident_kib();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = listener.local_addr().expect("its address");
    let wrong = [
        "[[server]]\nlisten = \"nowhere at all\"".to_owned(),
        // Only once all of it has been read is it found that an address is taken.
        world.config(1, upstreams).replace(&world.addrs[1].to_string(), &taken.to_string()),
    ];
    for n in 0..RELOADS {
        hopgate.refuse_reload_with(&wrong[n % 2]);
    }
    expect_no_growth("reloads that were refused", warm, hopgate.resident_kib());
    eventually("descriptors and threads are as before", || hopgate.resources() == idle);
}

/// What hopgate has when it has nothing to do.
#[track_caller]
fn settled(hopgate: &Hopgate) -> (usize, usize) {
    let (mut before, mut looks) = ((0, 0), 0);
    eventually("it has settled", || {
        let now = hopgate.resources();
        looks = if std::mem::replace(&mut before, now) == now { looks + 1 } else { 0 };
        looks == 20
    });
    before
}

#[track_caller]
fn expect_no_growth(what: &str, before: usize, after: usize) {
    println!("resident before and after the {what}: {before} KiB, {after} KiB");
    assert!(after < before + MOST_GROWTH_KIB, "from {before} to {after} KiB over the {what}");
}

/// What the configurations name.
struct World {
    addrs: [SocketAddr; 3],
    dir: Dir,
}

impl World {
    fn new() -> Self {
        let dir = Dir::new();
        Authority::new("root").issue(&["app.test"]).write(&dir, "app");
        Self { addrs: [free_addr(), free_addr(), free_addr()], dir }
    }

    /// The `n`th configuration: every second one has another address more, and no longer the locations of the tunnels;
    /// every third one has a server that speaks TLS. Each is long, so that it is seen if one stays.
    fn config(&self, n: usize, upstreams: Upstreams) -> String {
        let Upstreams { raw, websocket, pages } = upstreams;
        let [addr, second, third] = self.addrs;
        let (listen, tunnels) = if n % 2 == 1 {
            (format!(r#""{addr}", "{second}""#), String::new())
        } else {
            let tunnels = format!(
                r#"
                [[server.location]]
                path = "/raw"
                proxy_pass = "http://{raw}"
                upgrade = ["echo"]

                [[server.location]]
                path = "/websocket"
                proxy_pass = "http://{websocket}"
                "#
            );
            (format!(r#""{addr}""#), tunnels)
        };
        let many: String = (0..10)
            .map(|place| {
                format!(
                    r#"
                    [[server.location]]
                    path = "~ ^/config-{n}/{place}/(\\d+)$"
                    proxy_pass = "http://pages-{n}/$1"
                    proxy_set_header = {{ X-Config = "config {n} $1", X-Long = "{}" }}
                    "#,
                    "long ".repeat(2000)
                )
            })
            .collect();
        let tls = format!(
            r#"
            [[server]]
            listen = "{third} ssl"
            server_name = "app.test"
            ssl_certificate = '{}'
            ssl_certificate_key = '{}'
            location = [{{ path = "/", return = "204" }}]
            "#,
            self.dir.path("app.pem"),
            self.dir.path("app.key")
        );
        let tls = if n % 3 == 2 { &tls } else { "" };
        format!(
            r#"
            workers = 2
            # All of them come at once, on a machine that may be busy.
            proxy_connect_timeout = "30s"
            tunnel_handshake_timeout = "30s"
            proxy_read_timeout = "30s"

            [upstream.pages-{n}]
            server = "{pages}"
            keepalive_timeout = "2s"

            [[server]]
            listen = [{listen}]
            {tunnels}
            {many}

            [[server.location]]
            path = "/"
            proxy_pass = "http://pages-{n}"
            access_log = "off"

            [[server.location]]
            path = "= /config"
            proxy_pass = "http://pages-{n}"
            proxy_set_header = {{ X-Config = "config {n}" }}
            access_log = "off"
            {tls}
            "#
        )
    }
}

/// The number behind `mark` in a line of the access log.
#[track_caller]
fn number(line: &str, mark: &str) -> u64 {
    let after = line.split_once(mark).unwrap_or_else(|| panic!("no {mark:?} in {line}")).1;
    let digits = after.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number behind {mark:?} in {line}"))
}

/// Raises the limit of this process, and so that of the hopgate that it starts; most systems begin with 1024.
fn allow_open_files(n: u32) {
    let args = ["--pid", &process::id().to_string(), &format!("--nofile={n}:")];
    let raised = Command::new("prlimit").args(args).status().expect("prlimit, of util-linux, can be run");
    assert!(raised.success(), "{n} open files are not allowed here: see `ulimit -Hn`");
}

// The load: clients and upstreams on one thread of their own.

/// Where the three upstreams listen.
#[derive(Clone, Copy)]
struct Upstreams {
    raw: SocketAddr,
    websocket: SocketAddr,
    pages: SocketAddr,
}

/// Clients and upstreams that wait for the address of hopgate.
struct Prepared {
    start: mpsc::Sender<SocketAddr>,
    load: Load,
}

/// Clients that never stop talking, and what they report.
struct Load {
    /// What the clients are in: a number that grows, or [`Round::LAST`].
    round: watch::Sender<Round>,
    reports: mpsc::Receiver<Result<Round, String>>,
    thread: JoinHandle<()>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
struct Round(usize);

impl Round {
    const LAST: Round = Round(usize::MAX);
}

impl Load {
    fn prepare() -> (Prepared, Upstreams) {
        let (round, rounds) = watch::channel(Round(0));
        let (reporter, reports) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                tell.send(serve_upstreams().await.expect("ports to listen on"))
                    .expect("the test waits for it");
                let hopgate = tokio::task::spawn_blocking(move || started.recv()).await;
                let Ok(Ok(hopgate)) = hopgate else { return };
                talk_until_the_last_round(hopgate, &rounds, &reporter).await;
            });
        });
        let upstreams = told.recv_timeout(PATIENCE).expect("the upstreams listen");
        (Prepared { start, load: Self { round, reports, thread } }, upstreams)
    }

    /// Waits until every client has sent something, and got it back, that it had not begun to send before.
    #[track_caller]
    fn wait_for_a_round_of_every_client(&mut self) {
        let round = Round(self.round.borrow().0 + 1);
        self.round.send_replace(round);
        self.wait_for(round);
    }

    /// Lets every client say its last word, and waits until all have ended as they should.
    #[track_caller]
    fn finish(self) {
        self.round.send_replace(Round::LAST);
        self.wait_for(Round::LAST);
        self.thread.join().expect("the load ended well");
    }

    #[track_caller]
    fn wait_for(&self, round: Round) {
        let deadline = Instant::now() + PATIENCE;
        let mut clients = 0;
        while clients < CLIENTS {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(Ok(reported)) => clients += usize::from(reported == round),
                Ok(Err(failure)) => panic!("{round:?}: {failure}"),
                Err(_) => {
                    panic!("{round:?}: only {clients} of {CLIENTS} clients got through in {PATIENCE:?}")
                }
            }
        }
    }
}

impl Prepared {
    fn start(self, hopgate: SocketAddr) -> Load {
        self.start.send(hopgate).expect("the load waits for it");
        self.load
    }
}

/// Runs every client until it has been through the last round, and reports each round that it was through.
async fn talk_until_the_last_round(
    hopgate: SocketAddr,
    rounds: &watch::Receiver<Round>,
    reporter: &mpsc::Sender<Result<Round, String>>,
) {
    let noise: Arc<[u8]> = Noise::seeded(2).take(NOISE).into();
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let pace = Pace { rounds: rounds.clone(), through: Round(0), reporter: reporter.clone() };
        let client =
            Client { hopgate, pace, noise: noise.clone(), rng: fastrand::Rng::with_seed(number as u64) };
        let reporter = reporter.clone();
        clients.spawn(async move {
            let (kind, result) = client.talk(number).await;
            // Nobody listens any more once the test has failed for another reason.
            let _ = reporter.send(match result {
                Ok(()) => Ok(Round::LAST),
                Err(error) => Err(format!("client {number}, {kind}: {error}")),
            });
        });
    }
    while clients.join_next().await.is_some() {}
}

/// Tells a client whether to go on, and the test how far it is.
struct Pace {
    rounds: watch::Receiver<Round>,
    through: Round,
    reporter: mpsc::Sender<Result<Round, String>>,
}

impl Pace {
    /// The round that has begun by now.
    fn now(&self) -> Round {
        *self.rounds.borrow()
    }

    /// Reports that something begun in this round was answered; whether there is more to do.
    fn through(&mut self, round: Round) -> bool {
        if round != self.through && round != Round::LAST {
            let _ = self.reporter.send(Ok(round));
            self.through = round;
        }
        round != Round::LAST
    }
}

/// One client of hopgate.
struct Client {
    hopgate: SocketAddr,
    pace: Pace,
    noise: Arc<[u8]>,
    rng: fastrand::Rng,
}

impl Client {
    async fn talk(self, number: usize) -> (&'static str, io::Result<()>) {
        const WEBSOCKET: usize = RAW_TUNNELS;
        const KEEP_ALIVE: usize = WEBSOCKET + WEBSOCKETS;
        const ONE: usize = KEEP_ALIVE + KEPT_ALIVE;
        const DOWNLOAD: usize = ONE + ONE_BY_ONE;
        match number {
            ..WEBSOCKET => ("a raw tunnel", self.raw_tunnel().await),
            WEBSOCKET..KEEP_ALIVE => ("a WebSocket", self.websocket().await),
            KEEP_ALIVE..ONE => ("requests on one connection", self.requests(true).await),
            ONE..DOWNLOAD => ("requests on a connection each", self.requests(false).await),
            DOWNLOAD.. => ("a download", self.download().await),
        }
    }

    /// Sends and receives at the same time through a tunnel of a made-up protocol; half-closes it at the end.
    async fn raw_tunnel(mut self) -> io::Result<()> {
        let mut stream = self.connect().await?;
        stream
            .write_all(b"GET /raw HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            .await?;
        let head = read_head(&mut stream).await?;
        expect(head.starts_with("HTTP/1.1 101 "), || format!("expected: 101\n     got: {head}"))?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        loop {
            let round = self.pace.now();
            let sent = self.piece();
            let mut got = vec![0; sent.len()];
            let sending = async { writer.write_all(&sent).await };
            tokio::try_join!(sending, reader.read_exact(&mut got))?;
            expect(got == sent, || "other bytes came back than were sent".to_owned())?;
            if !self.pace.through(round) {
                break;
            }
        }
        writer.shutdown().await?;
        let mut rest = Vec::new();
        timeout(PATIENCE, reader.read_to_end(&mut rest)).await??;
        expect(rest.is_empty(), || format!("{} bytes too many", rest.len()))
    }

    async fn websocket(mut self) -> io::Result<()> {
        let stream = TcpStream::connect(self.hopgate).await?;
        let (mut socket, _) =
            tokio_tungstenite::client_async("ws://a/websocket", stream).await.map_err(Error::other)?;
        loop {
            let round = self.pace.now();
            let sent = self.piece();
            socket.send(Message::binary(sent.clone())).await.map_err(Error::other)?;
            let got = socket.next().await.ok_or(ErrorKind::UnexpectedEof)?.map_err(Error::other)?;
            expect(got.into_data() == sent, || "another message came back than was sent".to_owned())?;
            if !self.pace.through(round) {
                break;
            }
        }
        socket.close(None).await.map_err(Error::other)?;
        while let Some(message) = timeout(PATIENCE, socket.next()).await? {
            let message = message.map_err(Error::other)?;
            expect(message.is_close(), || format!("a message after the last one: {message:?}"))?;
        }
        Ok(())
    }

    /// Posts bodies and compares what comes back. A kept connection must stay: a request that fails is a failure.
    async fn requests(mut self, keep: bool) -> io::Result<()> {
        let connection = if keep { "keep-alive" } else { "close" };
        let mut stream = self.connect().await?;
        loop {
            let round = self.pace.now();
            let sent = self.piece();
            let head = format!(
                "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\nContent-Length: {}\r\n\r\n",
                sent.len()
            );
            stream.write_all(&[head.as_bytes(), &sent].concat()).await?;
            let head = read_head(&mut stream).await?;
            expect(head.starts_with("HTTP/1.1 200 "), || format!("expected: 200\n     got: {head}"))?;
            let mut got = vec![0; content_length(&head)?];
            stream.read_exact(&mut got).await?;
            expect(got == sent, || "another body came back than was sent".to_owned())?;
            if !self.pace.through(round) {
                return Ok(());
            }
            if !keep {
                expect(stream.read(&mut [0]).await? == 0, || "more than the response".to_owned())?;
                stream = self.connect().await?;
            }
        }
    }

    /// Reads one response that is longer than all the reloads, block by block.
    async fn download(mut self) -> io::Result<()> {
        let mut stream = self.connect().await?;
        stream.write_all(b"GET /download HTTP/1.1\r\nHost: a\r\n\r\n").await?;
        let head = read_head(&mut stream).await?;
        expect(head.starts_with("HTTP/1.1 200 "), || format!("expected: 200\n     got: {head}"))?;
        let mut block = vec![0; LARGEST];
        for at in (0..NOISE).step_by(LARGEST).cycle() {
            let round = self.pace.now();
            stream.read_exact(&mut block).await?;
            expect(block == self.noise[at..at + LARGEST], || "other bytes than were to come".to_owned())?;
            if !self.pace.through(round) {
                break;
            }
            // The tunnels are the subject: the downloads leave them the machine.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn connect(&self) -> io::Result<BufReader<TcpStream>> {
        Ok(BufReader::new(TcpStream::connect(self.hopgate).await?))
    }

    /// Some bytes of the noise, hardly ever the same ones twice.
    fn piece(&mut self) -> Vec<u8> {
        let length = self.rng.usize(1..LARGEST);
        let start = self.rng.usize(..NOISE - length);
        self.noise[start..start + length].to_vec()
    }
}

// The upstreams.

/// Starts the three of them on the runtime; each connection ends with its client.
async fn serve_upstreams() -> io::Result<Upstreams> {
    let noise: Arc<[u8]> = Noise::seeded(2).take(NOISE).into();
    Ok(Upstreams {
        raw: serve(echo_raw).await?,
        websocket: serve(echo_messages).await?,
        pages: serve(move |stream| answer(stream, noise.clone())).await?,
    })
}

async fn serve<F>(connection: impl Fn(TcpStream) -> F + Send + 'static) -> io::Result<SocketAddr>
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(connection(stream));
        }
    });
    Ok(addr)
}

async fn echo_raw(stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    read_head(&mut stream).await?;
    stream
        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
        .await?;
    let (mut reader, mut writer) = tokio::io::split(stream);
    tokio::io::copy(&mut reader, &mut writer).await?;
    writer.shutdown().await
}

async fn echo_messages(stream: TcpStream) -> io::Result<()> {
    let mut socket = tokio_tungstenite::accept_async(stream).await.map_err(Error::other)?;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_binary() {
            socket.send(message).await.map_err(Error::other)?;
        }
    }
    Ok(())
}

/// `/echo` sends a body back, `/config` the field `X-Config`, `/download` the noise without end.
async fn answer(stream: TcpStream, noise: Arc<[u8]>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = read_head(&mut stream).await?;
        if head.starts_with("GET /download ") {
            stream
                .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40).as_bytes())
                .await?;
            loop {
                stream.write_all(&noise).await?;
            }
        }
        let mut body = vec![0; content_length(&head)?];
        stream.read_exact(&mut body).await?;
        if let Some(config) = field(&head, "x-config") {
            body = config.into();
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), &body].concat()).await?;
    }
}

// HTTP, as far as it is needed here.

/// The next head, without its empty line.
async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        if stream.read_line(&mut head).await? == 0 {
            return Err(Error::new(
                ErrorKind::UnexpectedEof,
                format!("the connection ended in place of a head: {head:?}"),
            ));
        }
        if head[before..] == *"\r\n" {
            return Ok(head);
        }
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
}

fn content_length(head: &str) -> io::Result<usize> {
    field(head, "content-length").unwrap_or("0").parse().map_err(Error::other)
}

fn expect(holds: bool, what: impl FnOnce() -> String) -> io::Result<()> {
    if holds { Ok(()) } else { Err(Error::other(what())) }
}
