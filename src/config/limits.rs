//! `[limits]`: what clients may take of the gateway.

use std::ops::RangeInclusive;

use crate::config::read::some_time;
use crate::document::{Placed, Section, Value, integer, size};
use crate::downstream::{HeadLimits, Limits};

/// The most that pingora reads of a head, and the most fields that it takes.
const MAX_HEADER: u64 = 1_000_000;
const MAX_FIELDS: i64 = 256;

/// The longest target that the `http` crate takes.
const MAX_URI: u64 = 65_000;

/// More connections than a process can have open files.
const MAX_COUNT: i64 = 10_000_000;

pub(crate) fn limits(mut section: Section<'_>) -> Option<Limits> {
    let connections = section.optional("connections", count(1..=MAX_COUNT));
    let connections_per_address = section.optional("connections_per_address", count(1..=MAX_COUNT));
    let header = section.optional("header", bytes(256..=MAX_HEADER));
    let fields = section.optional("header_fields", count(1..=MAX_FIELDS));
    let uri = section.optional("uri", bytes(64..=MAX_URI));
    let body = section.optional("body", size);
    let idle = section.optional("idle", some_time);
    let header_timeout = section.optional("header_timeout", some_time);
    let body_timeout = section.optional("body_timeout", some_time);
    let min_rate = section.optional("min_rate", size);
    let write_timeout = section.optional("write_timeout", some_time);
    let handshakes = section.optional("handshakes", count(1..=MAX_COUNT));
    let handshake_timeout = section.optional("handshake_timeout", some_time);
    let streams = section.optional("http2_streams", count(1..=MAX_COUNT));
    let in_flight = section.optional("in_flight", count(1..=MAX_COUNT));
    if let (Some(Placed { value: uri, place }), Some(Placed { value: header, .. })) = (&uri, &header)
        && uri >= header
    {
        section.problems().report(place, "`limits.uri`: it has to be less than `limits.header`, which it is a part of");
    }
    section.finish();
    Some(Limits {
        connections: connections?.value,
        connections_per_address: connections_per_address?.value,
        head: HeadLimits { bytes: header?.value, fields: fields?.value, uri: uri?.value },
        body: body?.value,
        idle: idle?.value,
        header_timeout: header_timeout?.value,
        body_timeout: body_timeout?.value,
        min_rate: min_rate?.value,
        write_timeout: write_timeout?.value,
        handshakes: handshakes?.value,
        handshake_timeout: handshake_timeout?.value,
        streams: streams?.value,
        in_flight: in_flight?.value,
    })
}

/// A whole number in `range`.
pub(crate) fn count<T: TryFrom<i64>>(range: RangeInclusive<i64>) -> impl FnOnce(&Value) -> Result<T, String> {
    move |value| {
        let number = integer::<i64>(value)?;
        let fits = T::try_from(number).ok().filter(|_| range.contains(&number));
        fits.ok_or_else(|| format!("{number} is out of range: {} to {}", range.start(), range.end()))
    }
}

/// A number of bytes in `range`.
fn bytes(range: RangeInclusive<u64>) -> impl FnOnce(&Value) -> Result<usize, String> {
    move |value| {
        let bytes = size(value)?;
        let fits = usize::try_from(bytes).ok().filter(|_| range.contains(&bytes));
        fits.ok_or_else(|| format!("{bytes} bytes are out of range: {} to {}", range.start(), range.end()))
    }
}
