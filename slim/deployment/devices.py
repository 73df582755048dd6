"""The devices that a network runs on, and its size, as text."""

from slim.common.compat import tf
from slim.common.cores import available_cores
from slim.common.errors import count
from slim.deployment.model_deploy import DeploymentConfig, session_config


def describe_devices(config: DeploymentConfig) -> str:
    """Returns the devices of the clones, such as `NVIDIA H200 (138.2 GiB free)`.

    This uses no GPU memory except that of the CUDA context.
    """
    gpus = tf.config.list_physical_devices("GPU")[: config.num_clones]
    if config.clone_on_cpu or not gpus:
        return f"CPU ({count(available_cores(), 'core')})"
    with tf.Session(graph=tf.Graph(), config=session_config()) as session:
        devices = [device for device in session.list_devices() if device.device_type == "GPU"]
    names = [tf.config.experimental.get_device_details(gpu).get("device_name") for gpu in gpus]
    return ", ".join(
        f"{name or 'GPU'} ({device.memory_limit_bytes / 2**30:.1f} GiB free)"
        for name, device in zip(names, devices, strict=False)
    )


def describe_run(
    model_name: str,
    image_size: int,
    parameters: int,
    *,
    devices: str | None = None,
    trained: int | None = None,
    num_clones: int = 1,
    precision: str = "float32",
    xla: bool = False,
) -> str:
    """Returns a line about a network: sizes, precision, and the devices that it runs on.

    `devices` defaults to the devices of a single clone. `trained`, the number of parameters that
    are trained, is None in inference.
    """
    size = f"{parameters:,} parameters"
    if trained is not None:
        size += f" ({'all' if trained == parameters else f'{trained:,}'} trained)"
    devices = devices or describe_devices(DeploymentConfig())
    compiled = " with XLA" if xla else ""
    clones = f"{num_clones} clones " if num_clones > 1 else ""
    return (
        f"{model_name} at {image_size} pixels: {size}, {precision}{compiled}, {clones}on {devices}"
    )
