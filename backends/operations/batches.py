"""Gathering a batch of images from a data set on the device."""

from backends.names import resolve_name
from backends.operations.common import Array, Operations, require_axes, require_indices


class Batches(Operations):
    """Gather and normalize."""

    def gather_batch(self, images: Array, indices: Array, *, dtype: str, shift: float) -> Array:
        """Return rows of `images` with normalized pixels, in shape (B, pixels) and `dtype`.

        Pixels stay uint8 until they are used, which needs a quarter of the memory and bandwidth.

        Args:
            images: (N, pixels), uint8 0…255 or `dtype` 0…1.
            indices: rows to gather (B,), integers.
            dtype: name of the dtype to return, "float32" or "float64".
            shift: added to every pixel after scaling to 0…1; −0.5 centers them.

        Returns:
            pixel / 255 + shift for uint8, pixel + shift otherwise.

        Raises:
            TypeError: `images` is neither uint8 nor of `dtype`, or `indices` are not integers.
            ValueError: `dtype` is another name, an array has the wrong shape, or an index is out of
                range; the range is not checked within `computation`.
        """
        self._check_gather(images, indices)
        xp = self.xp
        wanted = getattr(xp, resolve_name("dtype", dtype, ("float32", "float64")))
        batch = xp.take(images, indices, axis=0)
        if batch.dtype == xp.uint8:
            batch = xp.astype(batch, wanted)
            batch /= 255  # in place: full-batch training gathers the whole data set
        elif batch.dtype != wanted:
            raise TypeError(f"images must be uint8 or {dtype}, got {batch.dtype}")
        if shift:
            batch += shift
        return batch

    def _check_gather(self, images: Array, indices: Array) -> None:
        require_axes("images", images, "N", "pixels")
        require_axes("indices", indices, "B")
        require_indices(self.xp, "indices", indices, images.shape[0])
