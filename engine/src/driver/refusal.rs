//! The answer to what is refused or failed: complete, so that clients show the reason and do not retry.
//!
//! Bytes only. The reason phrase carries the reason, since it is the one thing that nearly every client prints
//! when a CONNECT fails; `Proxy-Status` carries it for machines (RFC 9209).

use crate::error::Code;

/// Bytes of a reason phrase; longer ones are cut by some clients.
const PHRASE_BYTES_MAX: usize = 120;

/// A response that ends the matter. `subject` is the target, where one is known; `with_body` is false for HEAD.
pub(crate) fn response(
    code: Code,
    subject: Option<&str>,
    rule: &str,
    reason: &str,
    with_body: bool,
    keep_alive: bool,
) -> Vec<u8> {
    let status = code.status();
    let what = if is_policy(code) { "Blocked by weir" } else { "weir" };
    let subject = subject.map_or(String::new(), |subject| format!(" {subject}"));
    let phrase = printable(&format!("{what}:{subject} {code} [{rule}] {reason}"), PHRASE_BYTES_MAX);
    let body = format!("{what}:{subject} {code}\nrule: {rule}\nreason: {reason}\n");
    let error = proxy_error(code);
    let details = printable(reason, PHRASE_BYTES_MAX).replace(['"', '\\'], "'");
    let connection = if keep_alive { "keep-alive" } else { "close" };
    let mut response = format!(
        "HTTP/1.1 {status} {phrase}\r\n\
         Proxy-Status: weir; error={error}; details=\"{code}: {details}\"\r\n\
         X-Weir-Rule: {}\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\n\
         Cache-Control: no-store\r\n\
         Connection: {connection}\r\n\r\n",
        printable(rule, PHRASE_BYTES_MAX),
        body.len(),
    );
    if with_body {
        response.push_str(&body);
    }
    response.into_bytes()
}

/// Whether policy said no, as against something that failed.
fn is_policy(code: Code) -> bool {
    code.status() == 403
}

/// The error type of RFC 9209, 2.3.
fn proxy_error(code: Code) -> &'static str {
    match code {
        Code::NotAllowed
        | Code::DeniedHost
        | Code::DeniedPort
        | Code::RawIp
        | Code::SniMismatch
        | Code::NoSni
        | Code::NotTls
        | Code::EchMismatch => "http_request_denied",
        Code::IpClass => "destination_ip_prohibited",
        Code::Loop => "proxy_loop_detected",
        Code::DnsFailed => "dns_error",
        Code::AuthorityMismatch | Code::Malformed | Code::HeadTimeout => "http_request_error",
        Code::UpstreamUnreachable => "destination_unavailable",
        Code::UpstreamRefused => "connection_refused",
        Code::UpstreamTls => "tls_certificate_error",
        Code::UpstreamMalformed => "http_protocol_error",
        Code::UpstreamTimeout => "connection_timeout",
        Code::Overload | Code::Draining => "connection_limit_reached",
        Code::Internal => "proxy_internal_error",
    }
}

/// Printable ASCII of at most `max` bytes: what came from a peer or a policy cannot break the head.
fn printable(text: &str, max: usize) -> String {
    text.chars().map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' }).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_reason_breaks_the_head() {
        let bytes =
            response(Code::DeniedHost, Some("a.test:443"), "r\r\nX: 1", "no\r\n\r\n\"é\"", true, false);
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with(
                "HTTP/1.1 403 Blocked by weir: a.test:443 denied_host [r??X: 1] no????\"?\"\r\n"
            ),
            "{head}"
        );
        assert_eq!(head.lines().count(), 7);
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }

    #[test]
    fn head_requests_get_the_length_but_no_body() {
        let bytes = response(Code::Overload, None, "limit", "full", false, true);
        assert!(bytes.ends_with(b"\r\n\r\n"));
        assert!(bytes.starts_with(b"HTTP/1.1 503 weir: overload [limit] full\r\n"));
    }
}
