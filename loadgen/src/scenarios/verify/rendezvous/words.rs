//! What clients say, and what must come of it, to the byte.

use super::super::label::{Bodies, Label, awkward};
use super::super::violation::{Violation, is_exactly, shown};
use crate::dialects::as_json_string;
use crate::dialects::rendezvous::{ROLES, method};

/// The request id of a label's message.
pub(super) fn request_id(label: &Label) -> String {
    format!("r-{:x}-{:x}", label.sender, label.sequence)
}

/// The client message of a label, whose key is the target: mostly as its clients write it, at times with blanks, in
/// another order, with fields that may be missing and with some that nobody knows.
pub(super) fn message(bodies: &Bodies, label: &Label, role: usize) -> String {
    let body = bodies.of(label);
    let (method, payload) = (method(body.kind), as_json_string(&body.opaque));
    let (request, target, source) = (request_id(label), &label.key, ROLES[role]);
    match label.sequence % 7 {
        3 => format!(
            r#"{{"targetClientId":"{target}","startAt":12.50,"source":"{source}","requestId":"{request}","extra":{},"remoteClientId":"somebody else","connectionId":"x","method":"{method}","encryptedPayload":{payload}}}"#,
            awkward(label)
        ),
        6 => format!(
            "\n{{ \"method\" :\"{method}\",\t\"encryptedPayload\": {payload} , \"targetClientId\":\"{target}\",\"requestId\" : \"{request}\" }} "
        ),
        _ => format!(
            r#"{{"requestId":"{request}","method":"{method}","encryptedPayload":{payload},"targetClientId":"{target}"}}"#
        ),
    }
}

/// What a client says that is wrong, and the answer to it.
pub(super) fn wrong(label: &Label) -> (String, String) {
    let request = request_id(label);
    if label.sequence.is_multiple_of(2) {
        let text = format!("no JSON: {request}");
        let answer = format!(
            r#"{{"info":"invalidMessageError","data":"{text}","error":"invalid message format, expected JSON"}}"#
        );
        return (text, answer);
    }
    let text = format!(r#"{{"requestId":"{request}","method":"offer","encryptedPayload":"x"}}"#);
    let answer = format!(
        r#"{{"info":"validationError","requestId":"{request}","error":[{{"code":"invalid_type","expected":"string","received":"undefined","path":["targetClientId"],"message":"Required"}}]}}"#
    );
    (text, answer)
}

/// Checks that what came holds the whole message as it was sent, and returns who the server says it is from. Whether
/// blanks around the message belong to it is not said anywhere.
pub(super) fn sender_of<'a>(came: &'a [u8], message: &str, label: &Label) -> Result<&'a str, Violation> {
    let changed = || Violation::Changed { came: shown(came) };
    let text = std::str::from_utf8(came).map_err(|_| changed())?;
    let rest = text.strip_prefix(r#"{"info":"remoteData","data":"#).ok_or_else(changed)?;
    let rest = rest.trim_start().strip_prefix(message.trim()).ok_or_else(changed)?;
    let rest = rest.trim_start().strip_prefix(r#","remoteClientId":""#).ok_or_else(changed)?;
    let (sender, rest) = rest.split_once('"').ok_or_else(changed)?;
    is_exactly(rest.as_bytes(), &format!(r#","requestId":"{}"}}"#, request_id(label)))?;
    Ok(sender)
}
