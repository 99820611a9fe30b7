#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Kubernetes resource quantities (`250m`, `1.5Gi`, `1e3`). Owns parsing and the exact value; must
//! never lose what the user wrote: the text is kept and printed again. Tests: in this file.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// A resource amount. The value is held in nano-units (the finest that the API knows), saturating.
#[derive(Clone, Debug)]
pub struct Quantity {
    nanos: i128,
    text: Box<str>,
}

const NANO: i128 = 1_000_000_000;

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a quantity; write a number with an optional suffix (m, k, M, G, Ki, Mi, Gi, ...), such as 250m or 64Mi")]
pub struct ParseQuantityError {
    text: String,
}

/// Bytes with the largest binary suffix that divides them, as resource.BinarySI does.
pub fn binary(n: i128) -> String {
    let largest = ["Ti", "Gi", "Mi", "Ki"].iter().zip([40, 30, 20, 10]).find(|(_, bits)| n != 0 && n % (1 << bits) == 0);
    largest.map_or_else(|| n.to_string(), |(suffix, bits)| format!("{}{suffix}", n / (1 << bits)))
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Quantity, ParseQuantityError> {
        let error = || ParseQuantityError { text: text.to_owned() };
        let nanos = parse_nanos(text).ok_or_else(error)?;
        Ok(Quantity { nanos, text: text.into() })
    }

    pub fn from_units(n: i64) -> Quantity {
        Quantity { nanos: i128::from(n) * NANO, text: n.to_string().into() }
    }

    pub fn from_milli(n: i64) -> Quantity {
        let text = if n % 1000 == 0 { (n / 1000).to_string() } else { format!("{n}m") };
        Quantity { nanos: i128::from(n) * (NANO / 1000), text: text.into() }
    }

    /// Bytes, printed as [`binary`] does.
    pub fn from_bytes(n: i64) -> Quantity {
        Quantity { nanos: i128::from(n) * NANO, text: binary(i128::from(n)).into() }
    }

    /// Whole units, rounded up (as `Quantity.Value()` does).
    pub fn value(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO))
    }

    /// Thousandths, rounded up (as `Quantity.MilliValue()` does).
    pub fn milli(&self) -> i64 {
        saturate(ceil_div(self.nanos, NANO / 1000))
    }

    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
}

fn ceil_div(a: i128, b: i128) -> i128 {
    let q = a.div_euclid(b);
    if a.rem_euclid(b) == 0 { q } else { q + 1 }
}

fn saturate(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

fn parse_nanos(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (multiply, divide) = scale(suffix)?;
    // Digits beyond what 128 bits hold cannot be told apart from the largest amount.
    let mut value: i128 = 0;
    for d in whole.bytes() {
        value = value.saturating_mul(10).saturating_add(i128::from(d - b'0'));
    }
    let mut total = value.saturating_mul(NANO).saturating_mul(multiply);
    let (mut unit, mut fraction_nanos) = (NANO.saturating_mul(multiply), 0_i128);
    for d in fraction.bytes() {
        unit /= 10;
        fraction_nanos = fraction_nanos.saturating_add(unit.saturating_mul(i128::from(d - b'0')));
    }
    total = total.saturating_add(fraction_nanos);
    let total = ceil_div(total, divide);
    Some(if negative { -total } else { total })
}

/// The suffix as (multiplier, divisor).
fn scale(suffix: &str) -> Option<(i128, i128)> {
    Some(match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1_000),
        "k" => (1_000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (NANO * 1_000, 1),
        "P" => (NANO * 1_000_000, 1),
        "E" => (NANO * NANO, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        _ => return exponent(suffix),
    })
}

fn exponent(suffix: &str) -> Option<(i128, i128)> {
    let digits = suffix.strip_prefix(['e', 'E'])?;
    let exp: i32 = digits.parse().ok()?;
    if exp.unsigned_abs() > 18 {
        return None;
    }
    let power = 10_i128.pow(exp.unsigned_abs());
    Some(if exp < 0 { (1, power) } else { (power, 1) })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> std::cmp::Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Quantity, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 250m or 64Mi")
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Quantity, E> {
                Quantity::parse(v).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, v: u64) -> Result<Quantity, E> {
                Quantity::parse(&v.to_string()).map_err(E::custom)
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Quantity, E> {
                Quantity::parse(&v.to_string()).map_err(E::custom)
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Quantity, E> {
                Quantity::parse(&v.to_string()).map_err(E::custom)
            }
        }
        d.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_have_the_values_kubernetes_gives_them() {
        let cases = [
            ("200m", 1, 200),
            ("0.5", 1, 500),
            ("1", 1, 1000),
            ("64Mi", 67_108_864, 67_108_864_000),
            ("1e3", 1000, 1_000_000),
            ("1.5Gi", 1_610_612_736, 1_610_612_736_000),
            ("100n", 1, 1),
            ("2k", 2000, 2_000_000),
            ("0", 0, 0),
            (".5", 1, 500),
            ("128974848", 128_974_848, 128_974_848_000),
            ("129e6", 129_000_000, 129_000_000_000),
            ("12E", i64::MAX, i64::MAX),
        ];
        for (text, value, milli) in cases {
            let q = Quantity::parse(text).unwrap();
            assert_eq!((q.value(), q.milli()), (if text == "12E" { i64::MAX } else { value }, milli), "{text}");
            assert_eq!(q.to_string(), text);
        }
    }

    #[test]
    fn a_text_that_is_no_quantity_is_refused() {
        for text in ["", "m", "1.2.3", "1x", "--1", "1e99", "one", "1 Gi", "."] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bytes_print_with_the_largest_binary_suffix() {
        assert_eq!(Quantity::from_bytes(67_108_864).to_string(), "64Mi");
        assert_eq!(Quantity::from_bytes(1025).to_string(), "1025");
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,24}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn whole_milli_values_survive(n in -1_000_000_000_i64..1_000_000_000) {
            prop_assert_eq!(Quantity::parse(&Quantity::from_milli(n).to_string()).unwrap().milli(), n);
        }
    }
}
