//! A ClientHello made by hand, of any size (RFC 8446, 4.1.2). It is a hello and no more: no key in it is real.

/// The bytes of one TLS record with a ClientHello for `sni`, padded (RFC 7685) to exactly `bytes` in all where
/// that is possible.
pub fn client_hello(sni: Option<&str>, bytes: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    if let Some(name) = sni {
        let mut list = vec![0]; // host_name (RFC 6066, 3)
        list.extend(sized16(name.as_bytes()));
        extension(&mut extensions, 0x0000, &sized16(&list));
    }
    extension(&mut extensions, 0x002b, &[4, 0x03, 0x04, 0x03, 0x03]); // supported_versions: 1.3, 1.2
    extension(&mut extensions, 0x000a, &sized16(&[0x00, 0x1d])); // supported_groups: x25519
    extension(&mut extensions, 0x000d, &sized16(&[0x04, 0x03])); // signature_algorithms
    extension(&mut extensions, 0x0010, &sized16(b"\x08http/1.1")); // ALPN
    let mut share = vec![0x00, 0x1d];
    share.extend(sized16(&[0x42; 32]));
    extension(&mut extensions, 0x0033, &sized16(&share)); // key_share

    let without_padding = record(&extensions).len();
    if let Some(padding) = bytes.checked_sub(without_padding + 4) {
        extension(&mut extensions, 0x0015, &vec![0; padding]);
    }
    record(&extensions)
}

fn record(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![0x03, 0x03]; // legacy_version
    body.extend([0x11; 32]); // random
    body.push(32);
    body.extend([0x22; 32]); // legacy_session_id
    body.extend(sized16(&[0x13, 0x01, 0x13, 0x02])); // cipher_suites
    body.extend([1, 0]); // legacy_compression_methods
    body.extend(sized16(extensions));

    let mut handshake = vec![1]; // client_hello
    handshake.extend(&u32::try_from(body.len()).unwrap().to_be_bytes()[1..]);
    handshake.extend(body);

    let mut record = vec![0x16, 0x03, 0x01];
    record.extend(sized16(&handshake));
    record
}

fn extension(to: &mut Vec<u8>, kind: u16, data: &[u8]) {
    to.extend(kind.to_be_bytes());
    to.extend(sized16(data));
}

fn sized16(bytes: &[u8]) -> Vec<u8> {
    let mut sized = u16::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    sized.extend(bytes);
    sized
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The oracle: rustls reads the name out of it.
    #[test]
    fn rustls_reads_it() {
        let hello = client_hello(Some("shop.weir.test"), 1800);
        assert_eq!(hello.len(), 1800);
        let mut acceptor = rustls::server::Acceptor::default();
        acceptor.read_tls(&mut &hello[..]).unwrap();
        let accepted = acceptor.accept().map_err(|(error, _)| error).unwrap().unwrap();
        assert_eq!(accepted.client_hello().server_name(), Some("shop.weir.test"));
    }
}
