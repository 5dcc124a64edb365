//! The load: WebSockets through a proxy, and the CPU time that they cost its process.

mod measure;
mod tunnels;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::Load;
use crate::websocket;
use measure::{Figures, settle};
use tunnels::{Happened, Tunnels};

const MIB: usize = 1024 * 1024;
/// Before an `echo` is measured.
const WARM_UP: Duration = Duration::from_millis(200);
/// In which everything that was begun has to come to its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Work {
    /// Each tunnel sends a message, and the next one when the answer is there, or after a pause then.
    Echo,
    /// Each tunnel receives as fast as it can.
    Bulk,
    /// Each: connect, handshakes, one echo, reset.
    Open,
    /// They are opened, have one echo each, and are left alone until standard input ends.
    Idle,
}

/// Does the work and prints what it came to.
pub fn run(load: &Load) -> io::Result<()> {
    let limit = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: limit, maximum: limit })?;
    let time = Duration::from_secs_f64(load.seconds.unwrap_or(1.0));
    let mut fleet = Fleet::new(load)?;
    match load.work {
        Work::Echo => {
            fleet.open(load.tunnels, load.tunnels)?;
            fleet.echo(WARM_UP, &mut Figures::default())?;
            match load.pause {
                0.0 => measure::during(load.pid, |figures| fleet.echo(time, figures)),
                pause => {
                    let pause = Duration::from_secs_f64(pause / 1000.0);
                    measure::during(load.pid, |figures| fleet.ask(time, pause, figures))
                }
            }
        }
        Work::Bulk => {
            let time = load.seconds.map(|_| time);
            measure::during(load.pid, |figures| fleet.bulk(load.tunnels, load.mib, time, figures))
        }
        Work::Open => measure::during(load.pid, |figures| fleet.renew(load.tunnels, time, figures)),
        Work::Idle => {
            fleet.open(load.tunnels, 32)?;
            settle();
            println!("{{}}");
            io::stdout().flush()?;
            io::stdin().read_to_end(&mut Vec::new()).map(drop)
        }
    }
}

/// The tunnels, and what each of them waits for.
struct Fleet {
    tunnels: Tunnels,
    /// Whether all sessions but the first ones must be resumed ones.
    resumes: bool,
    message: Vec<u8>,
    answer: usize,
    /// How many bytes are still to come, and since when, by tunnel.
    waits: Vec<(usize, Instant)>,
    happened: Vec<(usize, Happened)>,
}

impl Fleet {
    fn new(load: &Load) -> io::Result<Self> {
        let path = match load.work {
            Work::Bulk => format!("/bulk/{}", load.mib),
            _ => "/echo".to_owned(),
        };
        Ok(Self {
            tunnels: Tunnels::new(
                load.to,
                load.ca.as_deref().map(Path::new),
                load.resume,
                load.streams,
                path,
            )?,
            resumes: load.resume,
            message: websocket::masked(load.size),
            answer: websocket::unmasked(load.size).len(),
            waits: Vec::new(),
            happened: Vec::new(),
        })
    }

    /// Opens so many, with one echo each, a few at a time.
    fn open(&mut self, count: usize, at_a_time: usize) -> io::Result<()> {
        let (mut begun, mut done) = (0, 0);
        let until = Instant::now() + PATIENCE;
        while done < count {
            while begun < count && begun - done < at_a_time {
                begun += self.tunnels.connect(count - begun)?;
                self.waits.resize(begun, (0, Instant::now()));
            }
            self.next(until)?;
            for place in 0..self.happened.len() {
                match self.happened[place] {
                    (tunnel, Happened::Opened) => self.say(tunnel)?,
                    (tunnel, Happened::Bytes(bytes)) => {
                        done += usize::from(self.hear(tunnel, bytes)?.is_some())
                    }
                }
            }
            self.tunnels.flush()?;
        }
        Ok(())
    }

    fn echo(&mut self, time: Duration, figures: &mut Figures) -> io::Result<()> {
        let begin = Instant::now();
        let end = begin + time;
        let mut outstanding = self.waits.len();
        (0..outstanding).try_for_each(|tunnel| self.say(tunnel))?;
        self.tunnels.flush()?;
        while outstanding > 0 {
            self.next(end + PATIENCE)?;
            let goes_on = Instant::now() < end;
            for place in 0..self.happened.len() {
                let (tunnel, Happened::Bytes(bytes)) = self.happened[place] else { continue };
                let Some(since) = self.hear(tunnel, bytes)? else { continue };
                figures.one(since.elapsed());
                if goes_on {
                    self.say(tunnel)?;
                } else {
                    outstanding -= 1;
                }
            }
            self.tunnels.flush()?;
        }
        figures.took = begin.elapsed();
        Ok(())
    }

    /// As [`Fleet::echo`], with a pause before each message: the tunnels are asked one after the other, evenly, so that
    /// hardly ever two messages meet, and what each of them takes is what it has to wait for.
    fn ask(&mut self, time: Duration, pause: Duration, figures: &mut Figures) -> io::Result<()> {
        let begin = Instant::now();
        let end = begin + time;
        let count = self.waits.len();
        let first = (0..count).map(|tunnel| (begin + pause * tunnel as u32 / count as u32, tunnel));
        let mut due: VecDeque<_> = first.collect();
        let mut outstanding = 0;
        while outstanding > 0 || !due.is_empty() {
            while let Some((_, tunnel)) = due.pop_front_if(|(at, _)| *at <= Instant::now()) {
                self.say(tunnel)?;
                outstanding += 1;
            }
            match due.front() {
                Some((at, _)) => self.tunnels.look(*at, &mut self.happened)?,
                None => self.next(end + PATIENCE)?,
            }
            for place in 0..self.happened.len() {
                let (tunnel, Happened::Bytes(bytes)) = self.happened[place] else { continue };
                let Some(since) = self.hear(tunnel, bytes)? else { continue };
                figures.one(since.elapsed());
                outstanding -= 1;
                if since + pause < end {
                    due.push_back((since + pause, tunnel));
                }
            }
        }
        figures.took = begin.elapsed();
        Ok(())
    }

    fn bulk(
        &mut self,
        count: usize,
        mib: usize,
        time: Option<Duration>,
        figures: &mut Figures,
    ) -> io::Result<()> {
        let begin = Instant::now();
        let mut begun = 0;
        while begun < count {
            begun += self.tunnels.connect(count - begun)?;
        }
        // The heads of the frames, too.
        let all = count * mib * websocket::unmasked(MIB / 16).len() * 16;
        let mut rest = all;
        while rest > 0 && time.is_none_or(|time| begin.elapsed() < time) {
            self.next(Instant::now() + PATIENCE)?;
            for (_, happened) in &self.happened {
                if let Happened::Bytes(bytes) = happened {
                    rest = rest
                        .checked_sub(*bytes)
                        .ok_or_else(|| io::Error::other("more came than was sent"))?;
                }
            }
            self.tunnels.flush()?;
        }
        figures.operations = (all - rest) / MIB;
        figures.took = begin.elapsed();
        Ok(())
    }

    fn renew(&mut self, count: usize, time: Duration, figures: &mut Figures) -> io::Result<()> {
        let begin = Instant::now();
        let end = begin + time;
        let mut outstanding = 0;
        while outstanding < count {
            outstanding += self.tunnels.connect(count - outstanding)?;
        }
        self.waits = vec![(0, Instant::now()); count];
        let mut since = vec![begin; count];
        while outstanding > 0 {
            self.next(end + PATIENCE)?;
            for place in 0..self.happened.len() {
                let (tunnel, happened) = self.happened[place];
                let Happened::Bytes(bytes) = happened else {
                    self.say(tunnel)?;
                    continue;
                };
                if self.hear(tunnel, bytes)?.is_none() {
                    continue;
                }
                figures.one(since[tunnel].elapsed());
                since[tunnel] = Instant::now();
                if since[tunnel] < end {
                    self.tunnels.reconnect(tunnel)?;
                } else {
                    self.tunnels.reset(tunnel);
                    outstanding -= 1;
                }
            }
        }
        figures.took = begin.elapsed();
        if self.resumes && self.tunnels.new_sessions() > count {
            return Err(io::Error::other("the proxy does not resume every session"));
        }
        Ok(())
    }

    /// Waits until something has happened.
    fn next(&mut self, until: Instant) -> io::Result<()> {
        self.tunnels.wait(until, &mut self.happened)
    }

    fn say(&mut self, tunnel: usize) -> io::Result<()> {
        self.waits[tunnel] = (self.answer, Instant::now());
        self.tunnels.send(tunnel, &self.message)
    }

    /// With the last byte of an answer: when its message was sent.
    fn hear(&mut self, tunnel: usize, bytes: usize) -> io::Result<Option<Instant>> {
        let (rest, since) = &mut self.waits[tunnel];
        *rest = rest.checked_sub(bytes).ok_or_else(|| io::Error::other("more came than was sent"))?;
        Ok((*rest == 0).then_some(*since))
    }
}
