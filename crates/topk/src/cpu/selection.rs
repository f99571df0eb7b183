//! Selection of the k-th largest of many values by bisection.

/// Steps of the bisection. Each halves the range of values.
const STEPS: usize = 16;

/// Returns one of the values that at least `k` of them reach: the k-th largest, or one a little
/// smaller, which about `k / 16` more of them reach. `None` if there are fewer than `k`.
///
/// Counting is vectorised and takes no branch per value, so that the few passes over the values
/// cost less than one of a sort or a heap.
#[inline(always)]
pub(super) fn kth_largest(values: &[f32], k: usize) -> Option<f32> {
    if k == 0 || values.len() < k {
        return None;
    }
    let reach = |least: f32| values.iter().map(|v| u32::from(*v >= least)).sum::<u32>() as usize;
    let (least, largest) = (values.iter().map(|v| order(*v)))
        .fold((i32::MAX, i32::MIN), |(least, largest), key| (least.min(key), largest.max(key)));
    let (mut low, mut high) = (value(least), value(largest));
    let mut reaching = values.len();
    for _ in 0..STEPS {
        let middle = low + (high - low) / 2.0;
        if reaching <= k + k / 16 || middle <= low {
            break;
        }
        match reach(middle) {
            n if n >= k => (low, reaching) = (middle, n),
            _ => high = middle,
        }
    }
    // The least value that reaches the lower end is reached by as many.
    let reaching = values.iter().map(|v| if *v >= low { order(*v) } else { i32::MAX });
    Some(value(reaching.fold(i32::MAX, i32::min)))
}

/// Maps a float32 to an integer with the same order. The least of many integers is found 16 at a
/// time, that of floats one by one.
#[inline(always)]
fn order(value: f32) -> i32 {
    let bits = value.to_bits().cast_signed();
    bits ^ (bits >> 31 & i32::MAX)
}

/// The inverse of [`order`].
#[inline(always)]
fn value(order: i32) -> f32 {
    f32::from_bits((order ^ (order >> 31 & i32::MAX)).cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn at_least_k_values_reach_the_selected_one(
            values in proptest::collection::vec(
                prop_oneof![-1e13f32..1e13, -1f32..1.0, Just(0.25), Just(-0.0)], 0..300),
            k in 1usize..310,
        ) {
            let Some(got) = kth_largest(&values, k) else {
                prop_assert!(values.len() < k);
                return Ok(());
            };
            prop_assert!(values.contains(&got));
            prop_assert!(values.iter().filter(|v| **v >= got).count() >= k);
        }

        #[test]
        fn selected_value_of_spread_values_is_close_to_the_kth_largest(
            mut values in proptest::collection::vec(-1f32..1.0, 1..300),
            k in 1usize..300,
        ) {
            prop_assume!(k <= values.len());
            let got = kth_largest(&values, k).unwrap();
            values.sort_unstable_by(|a, b| b.total_cmp(a));
            let at_most = (k + k / 16).min(values.len());
            // A step of the bisection is 2^-15 wide here at the end.
            prop_assert!(got >= values[at_most - 1] - 1e-4, "{got} {:?}", values);
        }
    }

    #[test]
    fn selection_of_equal_values_is_that_value() {
        assert_eq!(kth_largest(&[0.5; 40], 7), Some(0.5));
        assert_eq!(kth_largest(&[], 1), None);
        assert_eq!(kth_largest(&[3.0, 1.0, 2.0], 1), Some(3.0));
        assert_eq!(kth_largest(&[3.0, 1.0, 2.0], 3), Some(1.0));
    }
}
