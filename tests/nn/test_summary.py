"""The table of the layers of a network."""

import mnist_accel as ma


def test_the_summary_lists_layers_shapes_and_parameters():
    model = ma.create_model("cnn", backend="numpy")
    assert model.summary().splitlines() == [
        "layer       output shape  parameters",
        "----------  ------------  ----------",
        "conv2d      8×26×26               72",
        "max_pool2d  8×13×13                –",
        "flatten     1352                   –",
        "linear      10                13,530",
        "",
        "13,602 parameters, softmax_cross_entropy, float32 on numpy, eager: the backend numpy has "
        "no compiled predictions",
    ]


def test_a_python_session_shows_the_table_without_quotes():
    summary = ma.create_model("cnn", backend="numpy").summary()
    assert repr(summary) == str(summary) == summary
    assert summary._repr_html_().startswith("<table>")


def test_notebooks_show_the_summary_as_a_table():
    html = ma.create_model("two-layer", backend="numpy")._repr_html_()
    assert html.count("<tr>") == 4
    assert "<td>linear</td><td>50</td><td>39,250</td>" in html


def test_the_name_of_a_network_is_escaped():
    model = ma.Network(
        ma.create_model("two-layer", backend="numpy").layers,
        ma.create_model("two-layer", backend="numpy").loss,
        input=ma.Pixels((784,)),
        backend="numpy",
        name="<b>",
    )
    assert "<b>" not in model._repr_html_()
