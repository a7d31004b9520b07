//! Messages to be rewritten: trees of parts, in order and out of it.

use proptest::prelude::*;

/// Boundaries, some of which begin like others.
const BOUNDARIES: [&str; 5] = ["b", "b1", "=_x/y?z", "b b", "--"];

fn eight_bit_text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => Just("Grüße aus Köln ".as_bytes().to_vec()),
        1 => Just("日本語".as_bytes().to_vec()),
        1 => Just(b"J\xfcrgen ".to_vec()),
    ]
}

/// Something a line is made of.
fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => "[a-zA-Z ,=:-]{0,30}".prop_map(String::into_bytes),
        2 => eight_bit_text(),
        1 => prop::sample::select(vec!["From ", ".", "--", "- ", "=", "=3D", "=C3=BC", "  ", "\t"])
            .prop_map(|text| text.as_bytes().to_vec()),
        1 => (900_usize..1_200).prop_map(|count| b"long words ".repeat(count / 11)),
        1 => prop::sample::select(vec![998_usize, 999, 2_500]).prop_map(|count| vec![b'x'; count]),
    ]
}

/// Lines, the last with its line end.
pub(super) fn lines() -> impl Strategy<Value = Vec<u8>> {
    let line = prop::collection::vec(word(), 0..4).prop_map(|words| [words.concat().as_slice(), b"\r\n"].concat());
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.concat())
}

/// Lines that look like structure, too.
fn wild_lines() -> impl Strategy<Value = Vec<u8>> {
    let delimiter = (prop::sample::select(&BOUNDARIES), prop::sample::select(vec!["", "--", " ", "-- \t", "x", "--x"]))
        .prop_map(|(boundary, end)| format!("--{boundary}{end}\r\n").into_bytes());
    let chunk = prop_oneof![4 => lines(), 1 => delimiter, 1 => Just(b"Content-Type: text/html\r\n\r\n".to_vec())];
    prop::collection::vec(chunk, 0..3).prop_map(|chunks| chunks.concat())
}

/// A part without structure: its header fields, and its body.
fn leaf(body: impl Strategy<Value = Vec<u8>> + 'static) -> impl Strategy<Value = Vec<u8>> {
    let types = prop::sample::select(vec![
        "",
        "Content-Type: text/plain; charset=utf-8\r\n",
        "Content-type: text/html; charset=\"iso-8859-1\"\r\n",
        "Content-Type: text/html\r\n",
        "Content-Type: application/pdf; name=\"a b.pdf\"\r\n",
        "Content-Type: image/png;\r\n\tname=\"Gr\u{fc}n.png\"\r\n",
        "Content-Type: text/plain;\r\n",
    ]);
    let encodings = prop::sample::select(vec![
        "",
        "",
        "Content-Transfer-Encoding: 7bit\r\n",
        "Content-Transfer-Encoding: 8bit\r\n",
        "CONTENT-TRANSFER-ENCODING: Binary\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "Content-Transfer-Encoding: base64\r\n",
    ]);
    let others = prop::sample::select(vec![
        "",
        "",
        "Content-Disposition: attachment; filename=\"Übersicht.pdf\"\r\n",
        "Content-Description: größer als alles\r\n",
    ]);
    (types, encodings, others, body).prop_map(|(kind, encoding, other, body)| {
        [kind.as_bytes(), encoding.as_bytes(), other.as_bytes(), b"\r\n", &body].concat()
    })
}

fn multipart(parts: impl Strategy<Value = Vec<Vec<u8>>>) -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec!["mixed", "alternative", "related", "digest", "signed", "mixed", "mixed"]);
    let heads = prop::sample::select(vec!["", "", "Content-Transfer-Encoding: 8bit\r\n", "MIME-Version: 1.0\r\n"]);
    (kinds, heads, prop::sample::select(&BOUNDARIES), parts, wild_lines(), wild_lines(), prop::bool::weighted(0.8))
        .prop_map(|(kind, head, boundary, parts, preamble, epilogue, is_closed)| {
            let mut out = format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n{head}\r\n").into_bytes();
            out.extend_from_slice(&preamble);
            for part in parts {
                out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
                out.extend_from_slice(&part);
            }
            if is_closed {
                out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
                out.extend_from_slice(&epilogue);
            }
            out
        })
}

/// Any message: odd boundaries, missing ends, lines that look like boundaries, headers without an empty line.
pub(super) fn wild() -> impl Strategy<Value = Vec<u8>> {
    let leaves = prop_oneof![5 => leaf(wild_lines()).boxed(), 1 => wild_lines().boxed()];
    let tree = leaves.prop_recursive(4, 20, 4, |inner| {
        let attached = inner.clone().prop_map(|part| {
            [b"Content-Type: message/rfc822\r\n\r\nSubject: attached \xc3\xbc\r\n".as_slice(), &part].concat()
        });
        let parts = prop::collection::vec(inner, 0..4);
        prop_oneof![3 => multipart(parts).boxed(), 1 => attached.boxed()]
    });
    tree.prop_map(|part| [b"From: a@b.test\r\nSubject: x\r\n".as_slice(), &part].concat())
}

/// Messages that every reader reads alike.
pub(super) fn orderly() -> impl Strategy<Value = Vec<u8>> {
    let plain = prop::collection::vec("(Grüße|x{999}|From |[.]|[a-z]{1,9}|--? ?|= |=3D| |\t|\r\n|日本)", 0..30)
        .prop_map(|words| [words.concat().as_bytes(), b"\r\n"].concat());
    let part = (plain, 0..5_usize, any::<bool>()).prop_map(|(text, kind, named)| {
        let header = match kind {
            0 => "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
            1 => "Content-Type: text/html\r\n",
            2 => "Content-Type: application/octet-stream; name=\"Übersicht 1.bin\"\r\nContent-Transfer-Encoding: binary\r\n",
            3 => "Content-Type: text/x-log; charset=utf-8\r\nContent-Disposition: attachment; filename=\"größe.log\"\r\n",
            _ => "",
        };
        let name = if named { "Content-Description: Ein größerer Teil\r\n" } else { "" };
        [header.as_bytes(), name.as_bytes(), b"\r\n", &text].concat()
    });
    let tree = part.prop_recursive(3, 12, 4, |inner| {
        let kinds = prop::sample::select(vec!["mixed", "alternative", "related"]);
        let nested =
            (kinds, 0..1_000_000_u32, prop::collection::vec(inner.clone(), 1..4)).prop_map(|(kind, number, parts)| {
                // Its end keeps one from being the beginning of another, which mail-parser would take for it.
                let boundary = format!("=_Part.{number}.{}=", parts.concat().len());
                let label = if number % 2 == 0 { "" } else { "Content-Transfer-Encoding: 8bit\r\n" };
                let mut out =
                    format!("Content-Type: multipart/{kind}; boundary=\"{boundary}\"\r\n{label}\r\n").into_bytes();
                for part in parts {
                    out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
                    out.extend_from_slice(&part);
                }
                out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
                out
            });
        let attached = inner.prop_map(|part| {
            let header = "Content-Type: message/rfc822\r\n\r\nSubject: Grüße\r\nMIME-Version: 1.0\r\n";
            [header.as_bytes(), &part].concat()
        });
        prop_oneof![3 => nested.boxed(), 1 => attached.boxed()]
    });
    tree.prop_map(|part| [b"From: a@b.test\r\nMIME-Version: 1.0\r\nSubject: x\r\n".as_slice(), &part].concat())
}
