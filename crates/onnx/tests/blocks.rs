//! Weights in blocks of a few bits: against values worked out by hand from the stored bytes.

use rockshard_onnx::{BlockLayout, BlockWeights, ZeroPoints};

/// Two outputs of ten weights in blocks of eight, the second block mostly filling.
fn weights(bits: usize, zeros: ZeroPoints) -> Result<BlockWeights, String> {
    let layout = BlockLayout { bits, block: 8, depth: 10, outputs: 2 };
    let packed = (0..32 * bits / 8).map(|i| (i * 37 + 11) as u8).collect();
    BlockWeights::new(layout, packed, vec![0.5, 2.0, 1.0, 4.0], zeros)
}

#[test]
fn a_weight_is_what_is_stored_less_zero_times_its_blocks_scale() {
    let four = weights(4, ZeroPoints::Middle).unwrap();
    // Bytes 11, 48: values 11, 0, 0, 3.
    assert_eq!([0, 1, 2, 3].map(|i| four.get(0, i)), [1.5, -4.0, -4.0, -2.5]);
    // Byte 4 is 159: 15, 9, with the second block's scale.
    assert_eq!([8, 9].map(|i| four.get(0, i)), [14.0, 2.0]);
    // Byte 8 is 51: 3, 3, of the second output.
    assert_eq!(four.get(1, 0), -5.0);
    let eight = weights(8, ZeroPoints::Middle).unwrap();
    assert_eq!(eight.get(0, 1), (48.0 - 128.0) * 0.5);
    let two = weights(2, ZeroPoints::Middle).unwrap();
    // Byte 0 is 0b00001011.
    assert_eq!([0, 1, 2, 3].map(|i| two.get(0, i)), [0.5, 0.0, -1.0, -1.0]);
}

#[test]
fn zero_points_are_one_a_block() {
    let packed = weights(4, ZeroPoints::Packed(vec![0x21, 0x43])).unwrap();
    assert_eq!((packed.get(0, 0), packed.get(0, 8)), ((11.0 - 1.0) * 0.5, (15.0 - 2.0) * 2.0));
    assert_eq!(packed.get(1, 0), 3.0 - 3.0);
    let real = weights(4, ZeroPoints::Real(vec![7.5, 0.0, 0.0, 0.0])).unwrap();
    assert_eq!(real.get(0, 0), (11.0 - 7.5) * 0.5);
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(weights(3, ZeroPoints::Middle).unwrap_err().contains("3 bits"));
    assert!(weights(4, ZeroPoints::Packed(vec![0])).unwrap_err().contains("zero points"));
    assert!(weights(4, ZeroPoints::Real(vec![0.0])).unwrap_err().contains("zero points"));
    let layout = BlockLayout { bits: 4, block: 12, depth: 12, outputs: 1 };
    let refused = BlockWeights::new(layout, vec![0; 6], vec![1.0], ZeroPoints::Middle);
    assert!(refused.unwrap_err().contains("blocks of 12"));
    let layout = BlockLayout { bits: 4, block: 8, depth: 8, outputs: usize::MAX };
    let refused = BlockWeights::new(layout, vec![0; 4], vec![1.0], ZeroPoints::Middle);
    assert!(refused.unwrap_err().contains("4 bytes and 1 scales"));
}
