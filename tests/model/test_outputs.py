import jax
import jax.numpy as jnp
import pytest

from videomae_jax.model.outputs import VideoClassifierOutput, VideoMAEForPreTrainingOutput, VideoMAEModelOutput

LOSS, LOGITS, STATES = jnp.zeros(()), jnp.ones((2, 3)), (jnp.zeros(1), jnp.ones(1))
OUTPUTS = {
    VideoMAEModelOutput: ("last_hidden_state", "hidden_states", "attentions"),
    VideoMAEForPreTrainingOutput: ("loss", "logits", "hidden_states", "attentions"),
    VideoClassifierOutput: ("loss", "logits", "hidden_states", "attentions"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_fields_are_those_of_transformers_in_order(kind):
    output = kind(*range(len(OUTPUTS[kind])))
    assert tuple(output) == tuple(output.keys()) == OUTPUTS[kind]
    assert output.to_tuple() == tuple(output.values()) == tuple(range(len(OUTPUTS[kind])))


def test_outputs_are_read_by_attribute_name_and_position():
    output = VideoMAEForPreTrainingOutput(LOSS, LOGITS)
    assert output.loss is output["loss"] is output[0]
    assert output.logits is output["logits"] is output[1]
    assert output[:1] == (LOSS,)
    assert VideoClassifierOutput(LOSS, LOGITS, STATES)[2] is STATES


def test_what_is_none_is_not_counted():
    output = VideoClassifierOutput(None, LOGITS)
    assert output.loss is None and output.hidden_states is None
    assert output[0] is LOGITS
    assert "logits" in output and "loss" not in output
    assert dict(output) == {"logits": LOGITS}
    assert len(output) == 1
    assert output.get("loss", 3) == 3


@pytest.mark.parametrize("name", ["loss", "logit", "to_tuple", "keys"])
def test_an_unknown_name_is_a_key_error(name):
    with pytest.raises(KeyError, match=name):
        VideoClassifierOutput(None, LOGITS)[name]


def test_a_position_too_many_is_an_index_error():
    with pytest.raises(IndexError):
        VideoMAEModelOutput(LOGITS)[1]


def test_outputs_are_pytrees():
    output = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x))(VideoClassifierOutput(LOSS, LOGITS, STATES))
    assert output.loss == 1
    assert isinstance(output.hidden_states, tuple) and output.hidden_states[1] == 2
    assert output.attentions is None
