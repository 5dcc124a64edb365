//! A DNS server of a test's own, on UDP and TCP: what it answers is set while others ask.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record};

/// A running DNS server; it ends with the test.
pub struct Dns {
    addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
}

#[derive(Default)]
struct Zone {
    names: HashMap<String, Says>,
    /// Every question so far: name and type, as in `app.example A`.
    asked: Vec<String>,
    over_tcp: usize,
    truncates: bool,
    has_ended: bool,
}

enum Says {
    Records(u32, Vec<RData>),
    ServFail,
    Nothing,
}

impl Dns {
    pub fn start() -> Self {
        let (udp, tcp) = sockets();
        let addr = udp.local_addr().expect("a bound socket has an address");
        let zone = Arc::<Mutex<Zone>>::default();
        let known = zone.clone();
        thread::spawn(move || answer_datagrams(&udp, &known));
        let known = zone.clone();
        thread::spawn(move || {
            for stream in tcp.incoming().map_while(Result::ok) {
                if known.lock().expect("no test has panicked").has_ended {
                    break;
                }
                let known = known.clone();
                thread::spawn(move || answer_stream(stream, &known));
            }
        });
        Self { addr, zone }
    }

    /// The line that has hopgate ask this server, with these parameters.
    pub fn resolver(&self, parameters: &str) -> String {
        format!("resolver = \"{} {parameters}\"", self.addr)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on a name has these records: an address, or `PRIORITY WEIGHT PORT TARGET` of SRV.
    pub fn set(&self, name: &str, ttl: u32, records: &[&str]) {
        let records = records.iter().map(|record| data(record)).collect();
        self.zone().names.insert(name.to_owned(), Says::Records(ttl, records));
    }

    /// From now on there is no such name.
    pub fn remove(&self, name: &str) {
        self.zone().names.remove(name);
    }

    /// From now on questions for a name are answered SERVFAIL.
    pub fn fail(&self, name: &str) {
        self.zone().names.insert(name.to_owned(), Says::ServFail);
    }

    /// From now on questions for a name are not answered.
    pub fn silence(&self, name: &str) {
        self.zone().names.insert(name.to_owned(), Says::Nothing);
    }

    /// From now on every answer over UDP is cut off.
    pub fn truncate(&self) {
        self.zone().truncates = true;
    }

    /// How often something like `app.example A` was asked.
    pub fn asked(&self, question: &str) -> usize {
        self.zone().asked.iter().filter(|asked| *asked == question).count()
    }

    /// How many questions came over TCP.
    pub fn asked_over_tcp(&self) -> usize {
        self.zone().over_tcp
    }

    fn zone(&self) -> MutexGuard<'_, Zone> {
        self.zone.lock().expect("no test has panicked")
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.zone().has_ended = true;
        // Each wakes the thread that waits for it.
        let waker = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let _ = waker.send_to(&[], self.addr);
        let _ = TcpStream::connect(self.addr);
    }
}

/// The same port for both.
fn sockets() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("a bound socket has an address")) {
            return (udp, tcp);
        }
    }
}

fn data(text: &str) -> RData {
    if let Ok(ip) = text.parse() {
        return RData::A(A(ip));
    }
    if let Ok(ip) = text.parse() {
        return RData::AAAA(AAAA(ip));
    }
    let words: Vec<&str> = text.split(' ').collect();
    let [priority, weight, port, target] = words[..] else { panic!("`{text}` is no record") };
    let number = |word: &str| word.parse().expect("a number");
    let target = Name::from_ascii(format!("{target}.")).expect("a name");
    RData::SRV(SRV::new(number(priority), number(weight), number(port), target))
}

fn answer_datagrams(socket: &UdpSocket, zone: &Mutex<Zone>) {
    let mut buffer = [0; 2048];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        if zone.lock().expect("no test has panicked").has_ended {
            return;
        }
        if let Some(answer) = answer(&buffer[..length], zone, true) {
            // Who has asked may be gone.
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn answer_stream(mut stream: TcpStream, zone: &Mutex<Zone>) -> Option<()> {
    loop {
        let mut length = [0; 2];
        stream.read_exact(&mut length).ok()?;
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        stream.read_exact(&mut question).ok()?;
        zone.lock().expect("no test has panicked").over_tcp += 1;
        let answer = answer(&question, zone, false)?;
        let length = u16::try_from(answer.len()).expect("answers of tests are short");
        stream.write_all(&[&length.to_be_bytes()[..], &answer].concat()).ok()?;
    }
}

/// `None`: nothing is said.
fn answer(question: &[u8], zone: &Mutex<Zone>, is_udp: bool) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let mut zone = zone.lock().expect("no test has panicked");
    zone.asked.push(format!("{name} {}", query.query_type()));
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = true;
    answer.metadata.recursion_available = true;
    answer.add_query(query.clone());
    match zone.names.get(&name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(Says::ServFail) => answer.metadata.response_code = ResponseCode::ServFail,
        Some(Says::Nothing) => return None,
        Some(Says::Records(..)) if is_udp && zone.truncates => answer.metadata.truncation = true,
        Some(Says::Records(ttl, records)) => {
            let of_kind = records.iter().filter(|data| data.record_type() == query.query_type());
            let records = of_kind.map(|data| Record::from_rdata(query.name().clone(), *ttl, data.clone()));
            answer.add_answers(records);
        }
    }
    answer.to_vec().ok()
}
