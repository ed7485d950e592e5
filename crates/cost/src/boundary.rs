//! What a run costs whatever it computes.

use crate::{OpCost, Rk3588};
use rockshard_graph::{Graph, Value};

/// The call of a run, and its inputs and outputs on their way from and to the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Boundary {
    call_micros: f64,
    inputs: Vec<Crossing>,
    outputs: Vec<Crossing>,
}

/// A tensor that crosses a boundary.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Crossing {
    cost: OpCost,
    /// Whether a tensor that stays on the device costs it too: what converts it is in the graph then.
    always: bool,
}

impl Rk3588 {
    /// Cost of the boundary of a graph. The runtime reshapes and transposes tensors of fewer than four axes on the NPU; those of four
    /// are converted to the NPU's layout and back, at the speed of a transpose. Each step reads and writes the tensor.
    pub fn boundary(&self, graph: &Graph) -> Boundary {
        let crossing = |value: &Value, tokens: f64| {
            let always = value.shape.len() < 4;
            let (rate, passes) =
                if always { (tokens, 4) } else { (self.transpose_bytes_per_second, 2) };
            let (micros, dram_bytes) =
                (value.npu_bytes() as f64 / rate * 1e6, passes * value.npu_bytes());
            Crossing { cost: OpCost { micros, dram_bytes, ..OpCost::default() }, always }
        };
        let input = |&v| crossing(graph.value(v), self.token_input_bytes_per_second);
        let output = |&v| crossing(graph.value(v), self.token_output_bytes_per_second);
        Boundary {
            call_micros: self.run_overhead_micros,
            inputs: graph.inputs.iter().map(input).collect(),
            outputs: graph.outputs.iter().map(output).collect(),
        }
    }
}

impl Boundary {
    /// Cost of a run whose inputs and outputs all come from and go to the host.
    pub fn cost(&self) -> OpCost {
        self.cost_beside(&[], &[])
    }

    /// Cost of a run of which some inputs and outputs stay on the device, in the NPU's layout. What is not listed does not.
    pub fn cost_beside(&self, inputs: &[bool], outputs: &[bool]) -> OpCost {
        let mut cost = OpCost { micros: self.call_micros, ..OpCost::default() };
        for (crossings, kept) in [(&self.inputs, inputs), (&self.outputs, outputs)] {
            for (at, crossing) in crossings.iter().enumerate() {
                if crossing.always || !kept.get(at).is_some_and(|&kept| kept) {
                    cost.micros += crossing.cost.micros;
                    cost.dram_bytes += crossing.cost.dram_bytes;
                }
            }
        }
        cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rockshard_tensor::DType;

    #[test]
    fn what_stays_on_the_device_is_not_converted() {
        let chip = Rk3588::default();
        let mut graph = Graph::default();
        let plane = graph.add_value("plane", DType::F32, vec![1, 64, 32, 32]);
        let tokens = graph.add_value("tokens", DType::F32, vec![1, 77, 768]);
        (graph.inputs, graph.outputs) = (vec![plane, tokens], vec![plane]);
        let boundary = chip.boundary(&graph);
        let plane_micros = 64.0 * 32.0 * 32.0 * 2.0 / chip.transpose_bytes_per_second * 1e6;
        let tokens_micros = 77.0 * 768.0 * 2.0 / chip.token_input_bytes_per_second * 1e6;
        let table: [(&[bool], &[bool], f64); 4] = [
            (&[], &[], 2.0 * plane_micros + tokens_micros),
            (&[true, false], &[false], plane_micros + tokens_micros),
            (&[true, false], &[true], tokens_micros),
            (&[true, true], &[true], tokens_micros),
        ];
        for (inputs, outputs, micros) in table {
            let found = boundary.cost_beside(inputs, outputs).micros - chip.run_overhead_micros;
            assert!((found - micros).abs() < 1e-9, "{inputs:?} {outputs:?}: {found}, not {micros}");
        }
        assert_eq!(boundary.cost(), boundary.cost_beside(&[false; 2], &[false]));
    }
}
