//! How a fuzzer says what happens: three digits for what the run is like, then one letter per operation and digits
//! behind it, with blanks and line ends between them as one likes. So corpora are read and written by hand.
//!
//! Every byte means something: a letter counts by its low five bits, in either case, a digit by its low four.
//!
//! | letter | what happens |
//! |---|---|
//! | `C` shard door | somebody connects to a shard and sends a request, see the target's doors |
//! | `N` shard cuts line | the same in pieces; the line is a door's URL and a message behind it, or any URL |
//! | `H` shard line | the same with a plain request for the line |
//! | `M` peer message | a message of the target's, see below |
//! | `T` peer line | what the line says, as text |
//! | `V` peer count message… | messages in one read |
//! | `P` peer cuts message | a message in pieces, as text, as binary or in fragments |
//! | `L` peer size | a long binary message with a pattern in it |
//! | `Q` peer kind | ping, pong, close with a code or none |
//! | `X` peer digit line | a frame whose first byte is the digit's and the line's first |
//! | `B` peer line | these bytes |
//! | `E` peer, `G` peer, `K` peer | its stream ends; its socket is closed; writing to it fails or the server panics |
//! | `R` peer digit, `U` peer | its socket takes so many bytes; takes all |
//! | `F` shard, `Z` peer, `A` which | a shard writes; a peer is read from; a moving socket arrives |
//! | `W` digit, `O` digit | time passes; the wall clock is set |
//! | `D`, `S` shard | all is written, read and delivered; a shard shuts down |
//!
//! In what is said `@` takes the next digit for a peer's id, `#` for a room's, `*` is a long text and `?` the rest of
//! the line.

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use parlor::limits::Limits;

use crate::referee::door::{Behind, Door, request};
use crate::referee::{Model, Referee};
use crate::world::{Setup, World};
use crate::{Cuts, client_frame};

/// What a target's clients do.
#[derive(Debug, Clone, Copy)]
pub struct Script {
    /// Where they go in.
    pub doors: &'static [Door],
    /// What they say.
    pub messages: &'static [&'static str],
}

const LONG_TEXT_BYTES: usize = 5_000;
const WAITS_MS: [u64; 8] = [50, 100, 500, 1_000, 3_000, 5_100, 25_000, 10_000];
const ROOMS: [usize; 8] = [0, 1, 2, 7, 130, 1_000, 70_000, 400_000];
const BULKS: [usize; 8] = [1, 200, 5_000, 30_000, 65_536, 100_000, 200_000, 400_000];

/// A run, and what is left of the input.
struct Play<'a, M> {
    input: Unstructured<'a>,
    world: World<Referee<M>>,
    script: Script,
}

/// Plays what an input says.
pub fn play<M: Model>(input: &[u8], script: Script, model: M) {
    let mut input = Unstructured::new(input);
    let Ok((setup, is_scarce)) = setup(&mut input) else { return };
    let referee = Referee::new(model, &setup, is_scarce);
    let mut play = Play { input, world: World::new(setup, referee), script };
    while play.run().is_ok_and(|is_running| is_running) {}
    play.world.finish();
}

/// Three digits: how many shards; what is small; what is late. Limits are small, so that they are reached.
fn setup(input: &mut Unstructured<'_>) -> Result<(Setup, bool)> {
    let (shards, small, late) = (digit(input)?, digit(input)?, digit(input)?);
    let is_scarce = small & 1 != 0;
    let limits = Limits {
        message_bytes_max: 6_000,
        fragments_max: 4,
        outbox_bytes_max: if small & 2 == 0 { 18_000 } else { 400 },
        shard_buffer_bytes: if is_scarce { 20_000 } else { 1 << 26 },
        messages_per_second_max: if small & 4 == 0 { 40 } else { 1 },
        rendezvous_messages_max: if small & 4 == 0 { 100 } else { 5 },
        rendezvous_window_ms: 1_500,
        room_timeout_ms: 6_990,
        pipe_hold_bytes: if small & 8 == 0 { 100_000 } else { 300 },
        pipe_hold_ms: if late & 4 == 0 { 0 } else { 3_980 },
        held_pipes_max: if small & 8 == 0 { 10_000 } else { 2 },
        ..Limits::default()
    };
    let setup = Setup {
        shards: 1 + shards % 3,
        limits,
        has_late_moves: late & 1 != 0,
        has_splices: late & 2 != 0,
        start_ms: if late & 8 == 0 { 0 } else { (1 << 32) - 2_000 },
        ..Setup::default()
    };
    Ok((setup, is_scarce))
}

fn digit(input: &mut Unstructured<'_>) -> Result<usize> {
    Ok(usize::from(input.arbitrary::<u8>()? & 15))
}

impl<M: Model> Play<'_, M> {
    /// Does the next operation, if there is one.
    fn run(&mut self) -> Result<bool> {
        if self.input.is_empty() {
            return Ok(false);
        }
        let letter = self.input.arbitrary()?;
        self.step(letter)?;
        Ok(true)
    }

    /// 0 where the input has ended.
    fn digit(&mut self) -> Result<usize> {
        digit(&mut self.input)
    }

    /// One of these, by a digit.
    fn one<T: Copy>(&mut self, of: &[T]) -> Result<T> {
        Ok(of[self.digit()? % of.len()])
    }

    /// What comes before the next line's end, which is taken too.
    fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        while !self.input.is_empty() {
            match self.input.arbitrary()? {
                b'\n' => break,
                byte => line.push(byte),
            }
        }
        Ok(line)
    }

    fn step(&mut self, letter: u8) -> Result<()> {
        match b'@' | letter & 31 {
            b'@' | b'J' => {}
            b'C' => self.connect()?,
            b'N' => self.connect_anywhere()?,
            b'H' => self.ask()?,
            b'T' => {
                let (peer, line) = (self.digit()?, self.line()?);
                let text = self.filled(&line)?;
                self.world.bytes(peer, &client_frame(0x81, &text), Cuts::default());
            }
            b'V' => self.say_many()?,
            b'P' => self.say_in_pieces()?,
            b'L' => self.say_much()?,
            b'Q' => self.say_control()?,
            b'X' => {
                let (peer, first, line) = (self.digit()?, self.digit()?, self.line()?);
                let (high, payload) =
                    line.split_first().map_or((0, &[][..]), |(high, payload)| (*high, payload));
                self.world.bytes(peer, &client_frame(high << 4 | first as u8, payload), Cuts::default());
            }
            b'B' => {
                let (peer, line) = (self.digit()?, self.line()?);
                self.world.bytes(peer, &line, Cuts::default());
            }
            b'W' => {
                let ms = self.one(&WAITS_MS)?;
                self.world.tick(ms);
            }
            b'O' => {
                let second = self.digit()? as u64;
                self.world.set_clock(1_700_000_000_000 + second);
            }
            b'D' => self.world.drain(),
            b'A' | b'E' | b'F' | b'G' | b'K' | b'R' | b'S' | b'U' | b'Z' => self.touch(b'@' | letter & 31)?,
            _ => self.say()?,
        }
        Ok(())
    }

    /// What happens to a socket or to a shard.
    fn touch(&mut self, letter: u8) -> Result<()> {
        let (which, world) = (self.digit()?, &mut self.world);
        match letter {
            b'A' => drop(world.arrive(which)),
            b'E' => world.end(which),
            b'F' => drop(world.flush(which)),
            b'G' => world.gone(which),
            b'K' if which < 8 => world.write_failed(which),
            b'K' => world.panic(which - 8),
            b'R' => {
                let room = self.one(&ROOMS)?;
                self.world.set_room(which, room);
            }
            b'S' => world.shutdown(which),
            b'U' => world.set_room(which, usize::MAX),
            _ => drop(world.read(which)),
        }
        Ok(())
    }

    fn connect(&mut self) -> Result<()> {
        let (shard, door) = (self.digit()?, self.one(self.script.doors)?);
        if let Some(peer) = self.accept(shard, Some(&door)) {
            self.world.bytes(peer, &door.request(), Cuts::default());
        }
        Ok(())
    }

    /// Somebody connects who will go in at this door, or somewhere else.
    fn accept(&mut self, shard: usize, door: Option<&Door>) -> Option<usize> {
        self.world.judge.expect(door.copied());
        self.world.accept(shard)
    }

    /// A plain request.
    fn ask(&mut self) -> Result<()> {
        let (shard, path) = (self.digit()?, self.line()?);
        if let Some(peer) = self.accept(shard, None) {
            let head = [b"GET /", path.as_slice(), b" HTTP/1.1\r\nHost: x\r\n\r\n"].concat();
            self.world.bytes(peer, &head, Cuts::default());
        }
        Ok(())
    }

    /// A door that nobody knows what is behind, or one that is known with the first message in the same pieces.
    fn connect_anywhere(&mut self) -> Result<()> {
        let (shard, cuts, line) = (self.digit()?, self.cuts()?, self.line()?);
        let known = self.script.doors.iter().filter(|door| line.starts_with(door.url.as_bytes()));
        let known = known.max_by_key(|door| door.url.len());
        let Some(peer) = self.accept(shard, known) else { return Ok(()) };
        let bytes = match known {
            Some(door) => {
                let message = self.filled(&line[door.url.len()..])?;
                [door.request(), self.first(door, &message)].concat()
            }
            None => request(&String::from_utf8_lossy(&line), shard & 8 != 0),
        };
        self.world.bytes(peer, &bytes, Cuts { sizes: &cuts });
        Ok(())
    }

    /// What comes behind a request.
    fn first(&self, door: &Door, message: &[u8]) -> Vec<u8> {
        match door.behind {
            Behind::RawPipe(_) => message.to_vec(),
            _ if message.is_empty() => Vec::new(),
            _ => client_frame(0x81, message),
        }
    }

    fn say(&mut self) -> Result<()> {
        let (peer, message) = (self.digit()?, self.message()?);
        self.world.bytes(peer, &client_frame(0x81, &message), Cuts::default());
        Ok(())
    }

    fn say_many(&mut self) -> Result<()> {
        let (peer, count) = (self.digit()?, self.digit()?);
        let mut bytes = Vec::new();
        for _ in 0..=count {
            bytes.extend(client_frame(0x81, &self.message()?));
        }
        self.world.bytes(peer, &bytes, Cuts::default());
        Ok(())
    }

    fn say_in_pieces(&mut self) -> Result<()> {
        let (peer, cuts, message) = (self.digit()?, self.cuts()?, self.message()?);
        let (front, back) = message.split_at(message.len() / 2);
        let bytes = match self.digit()? % 4 {
            0 => client_frame(0x81, &message),
            1 => client_frame(0x82, &message),
            2 => [client_frame(0x01, front), client_frame(0x80, back)].concat(),
            _ => {
                [client_frame(0x01, front), client_frame(0x89, b"between"), client_frame(0x80, back)].concat()
            }
        };
        self.world.bytes(peer, &bytes, Cuts { sizes: &cuts });
        Ok(())
    }

    /// Much at a time; raw ends send it as it is.
    fn say_much(&mut self) -> Result<()> {
        let (peer, size) = (self.digit()?, self.one(&BULKS)?);
        let bytes: Vec<u8> = (0..size).map(|at| (at / 251 + at) as u8).collect();
        let is_raw = self.world.present(peer).is_some_and(|at| self.world.host.peers[at].is_raw);
        let bytes = if is_raw { bytes } else { client_frame(0x82, &bytes) };
        self.world.bytes(peer, &bytes, Cuts::default());
        Ok(())
    }

    fn say_control(&mut self) -> Result<()> {
        let (peer, kind) = (self.digit()?, self.digit()?);
        let frame = match kind {
            0..=3 => client_frame(0x89, &b"ping"[..kind]),
            4 => client_frame(0x8a, b"pong"),
            5 | 6 => client_frame(0x88, b""),
            7 | 8 => client_frame(0x88, &1000_u16.to_be_bytes()),
            9 => client_frame(0x88, b"\x0b\xb8bye"),
            10 => client_frame(0x88, b"x"),
            11 => client_frame(0x88, &1005_u16.to_be_bytes()),
            12 => client_frame(0x89, &[b'p'; 125]),
            13 => client_frame(0x89, &[b'p'; 126]),
            14 => client_frame(0x09, b""),
            _ => client_frame(0x00, b"x"),
        };
        self.world.bytes(peer, &frame, Cuts::default());
        Ok(())
    }

    /// A digit, and so many sizes of pieces.
    fn cuts(&mut self) -> Result<Vec<u8>> {
        let count = self.digit()?;
        Ok(self.input.bytes(count.min(self.input.len()))?.to_vec())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let message = self.one(self.script.messages)?;
        self.filled(message.as_bytes())
    }

    /// Puts ids and texts where they belong.
    fn filled(&mut self, template: &[u8]) -> Result<Vec<u8>> {
        let mut message = Vec::new();
        for &byte in template {
            match byte {
                b'@' => {
                    let which = self.digit()?;
                    let peers = &self.world.host.peers;
                    let peer = which.checked_rem(peers.len()).map(|at| &peers[at]);
                    message.extend(peer.iter().flat_map(|peer| peer.id.text()));
                }
                b'#' => {
                    let which = self.digit()?;
                    message.extend(self.world.judge.word(which).into_bytes());
                }
                b'*' => message.resize(message.len() + LONG_TEXT_BYTES, b'x'),
                b'?' => message.extend(self.line()?),
                _ => message.push(byte),
            }
        }
        Ok(message)
    }
}
