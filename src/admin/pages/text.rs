//! How numbers and moments are written on pages.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

/// A number of things, with a comma every three digits.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number with as many decimals as tell something.
pub(crate) fn decimal(number: f64) -> String {
    let size = number.abs();
    if size >= 1e9 {
        format!("{number:.1e}")
    } else if size >= 1000.0 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 10^9, and its size")]
        let whole = count(size.round() as u64);
        if number < 0.0 { format!("-{whole}") } else { whole }
    } else if size >= 100.0 {
        format!("{number:.0}")
    } else if size >= 10.0 {
        trimmed(format!("{number:.1}"))
    } else if size >= 0.01 || size == 0.0 {
        trimmed(format!("{number:.2}"))
    } else if size >= 0.0001 {
        trimmed(format!("{number:.4}"))
    } else {
        format!("{number:.0e}")
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A percentage as it is set, to the thousandth.
pub(crate) fn percent(percentage: f64) -> String {
    format!("{}\u{a0}%", plain(percentage))
}

/// The same without its sign, as a field of a form has it.
pub(crate) fn plain(percentage: f64) -> String {
    trimmed(format!("{percentage:.3}"))
}

/// A share, 0 to 1, in percent.
pub(crate) fn share(share: f64) -> String {
    format!("{}\u{a0}%", decimal(share * 100.0))
}

/// Milliseconds.
pub(crate) fn millis(millis: f64) -> String {
    if millis >= 1000.0 {
        format!("{}\u{a0}s", decimal(millis / 1000.0))
    } else {
        format!("{}\u{a0}ms", decimal(millis))
    }
}

/// A moment in RFC 3339 as people read it, and how long ago that is.
pub(crate) fn moment(at: &str, now: Timestamp) -> Markup {
    let Ok(then) = at.parse::<Timestamp>() else { return html! { (at) } };
    html! {
        time datetime=(at) title=(at) { (clock_text(then, now)) " UTC" }
        " " span.faint { (ago(now.duration_since(then))) }
    }
}

/// The time of day, with the day if it is another one.
fn clock_text(then: Timestamp, now: Timestamp) -> String {
    let (then, now) = (format!("{then:.0}"), format!("{now:.0}"));
    let (day, time) = then.split_once('T').unwrap_or(("", &then));
    let time = time.trim_end_matches('Z');
    if now.starts_with(day) { time.to_owned() } else { format!("{day} {time}") }
}

/// How long ago something was, or in how long it is.
pub(crate) fn ago(span: SignedDuration) -> String {
    if span.is_negative() && span.as_secs() < 0 {
        return format!("in {}", rough(span.unsigned_abs().as_secs()));
    }
    format!("{} ago", rough(span.unsigned_abs().as_secs()))
}

/// A number of seconds in the largest unit that fits.
pub(crate) fn rough(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Seconds as a span that a ramp holds.
pub(crate) fn span(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a span that is shown, not below 0")]
    let seconds = seconds.max(0.0).round() as u64;
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes, rest) {
        (0, 0, rest) => format!("{rest} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, rest) => format!("{minutes} min {rest} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_exact_enough() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (0.000_001, "1e-6"),
            (0.000_5, "0.0005"),
            (0.5, "0.5"),
            (2.4291, "2.43"),
            (12.0, "12"),
            (333.3, "333"),
            (1333.3, "1,333"),
            (-1333.3, "-1,333"),
            (4e12, "4.0e12"),
        ] {
            assert_eq!(decimal(number), text);
        }
        assert_eq!(percent(0.125), "0.125\u{a0}%");
        assert_eq!(percent(10.0), "10\u{a0}%");
        assert_eq!(share(0.0512), "5.12\u{a0}%");
        assert_eq!(millis(1.25), "1.25\u{a0}ms");
        assert_eq!(millis(1250.0), "1.25\u{a0}s");
    }

    #[test]
    fn spans_are_rough() {
        assert_eq!(ago(SignedDuration::from_secs(59)), "59 s ago");
        assert_eq!(ago(SignedDuration::from_secs(-90)), "in 1 min");
        assert_eq!(rough(7200), "2 h");
        assert_eq!(rough(200_000), "2 days");
        assert_eq!(span(90.0), "1 min 30 s");
        assert_eq!(span(7200.0), "2 h");
        assert_eq!(span(5400.4), "1 h 30 min");
    }
}
