//! How an end must end, given what the other end did (protocols.md section 5). No I/O.

use super::super::violation::Violation;
use super::checker::Progress;
use crate::client::Ending;
use crate::raw::RawEnding;

/// How an end leaves its pipe before all is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Leaving {
    /// TCP reset.
    Reset,
    /// The end of the TCP stream without a close frame.
    TcpClose,
    /// TCP reset inside a frame.
    ResetInFrame,
    /// The end of the TCP stream inside a frame.
    TcpCloseInFrame,
    /// A WebSocket close between two frames.
    WebSocketClose,
}

impl Leaving {
    pub(super) const ALL: [Self; 5] =
        [Self::Reset, Self::TcpClose, Self::ResetInFrame, Self::TcpCloseInFrame, Self::WebSocketClose];

    /// Its name in the JSON file, and for people.
    pub(super) fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Reset => ("drops_reset", "drops by TCP reset"),
            Self::TcpClose => ("drops_tcp_close", "drops by TCP close"),
            Self::ResetInFrame => ("drops_reset_in_frame", "drops by TCP reset in a frame"),
            Self::TcpCloseInFrame => ("drops_tcp_close_in_frame", "drops by TCP close in a frame"),
            Self::WebSocketClose => ("drops_websocket_close", "drops by WebSocket close"),
        }
    }

    /// Inside a frame, where there are frames.
    pub(super) fn is_in_frame(self) -> bool {
        matches!(self, Self::ResetInFrame | Self::TcpCloseInFrame)
    }

    pub(super) fn is_reset(self) -> bool {
        matches!(self, Self::Reset | Self::ResetInFrame)
    }
}

/// How what comes to an end ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Arrival {
    /// Of a WebSocket end.
    WebSocket {
        /// How.
        ending: Ending,
        /// Inside a frame.
        in_frame: bool,
    },
    /// Of a raw end.
    Raw(RawEnding),
}

/// What one end did and saw.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// Which end.
    pub(super) name: String,
    /// How it left, if it did.
    pub(super) left: Option<Leaving>,
    /// It has sent all that it had to send.
    pub(super) is_done: bool,
    pub(super) sent: Progress,
    pub(super) received: Progress,
    pub(super) arrival: Arrival,
}

/// Checks what `own` saw of `other`, when both were joined.
pub(super) fn check(own: &Report, other: &Report) -> Result<(), Violation> {
    let wrong = |how: String| {
        let Report { name, arrival, received, .. } = own;
        let told = format!("{name} got {received:?} and ended with {arrival:?}; ");
        let Report { name, sent, is_done, left, arrival, .. } = other;
        let of_other =
            format!("{name} sent {sent:?}, done: {is_done}, left: {left:?}, ended with {arrival:?}: ");
        Err(Violation::WrongEnding { how: told + &of_other + &how })
    };
    if own.received.bytes > other.sent.bytes || own.received.messages > other.sent.messages {
        return wrong("more than was sent".to_owned());
    }
    if matches!(&own.arrival, Arrival::WebSocket { ending: Ending::Broken(_), .. }) {
        return wrong("the server broke RFC 6455".to_owned());
    }
    if own.left.is_some() {
        return Ok(());
    }
    let is_all = own.received == other.sent;
    let problem = match (&own.arrival, other.left) {
        (Arrival::WebSocket { ending, .. }, None | Some(Leaving::WebSocketClose)) => {
            let Ending::Closed(code, _) = ending else { return wrong("it should be closed".to_owned()) };
            let in_order = *code == 1005 || (*code == 1000 && own.is_done && other.is_done);
            (!in_order).then_some("closed with another code").or((!is_all).then_some("not all arrived"))
        }
        (Arrival::WebSocket { ending: Ending::Closed(..), .. }, Some(_)) => None,
        (Arrival::WebSocket { in_frame, .. }, Some(_)) => (!in_frame).then_some("it should be closed"),
        (Arrival::Raw(RawEnding::Finished), _) => {
            let may_finish = is_all && other.is_done;
            (!may_finish).then_some("an end before all arrived")
        }
        (Arrival::Raw(RawEnding::Failed(_)), None) => Some("it should end in order"),
        (Arrival::Raw(RawEnding::Failed(_)), Some(_)) => None,
    };
    problem.map_or(Ok(()), |problem| wrong(problem.to_owned()))
}
