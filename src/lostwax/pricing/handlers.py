"""The one use case of pricing: a request in, a result out. No state but a memory of what models measure."""

import asyncio
import logging
import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from lostwax.contracts.orders import Geometry, ModelRef, PriceFailure
from lostwax.contracts.pricing import NotPriced, Priced, PriceRequest, PriceResult
from lostwax.kit import tracing
from lostwax.kit.objects import Bucket, NoSuchObject, TooLong
from lostwax.pricing import domain
from lostwax.pricing.measure import MeasuredModels, ModelUnreadable, scaled
from lostwax.pricing.sandbox import Sandbox

log = logging.getLogger(__name__)

_NICE_FOR_GIANTS = 15
"""So that a giant gets what the others leave of the cores."""


class Pricer:
    """Prices requests; each model is fetched and measured once, however many ask for it at the same time."""

    def __init__(self, models: Bucket, sandbox: Sandbox) -> None:
        self._models = models
        self._sandbox = sandbox
        self._measured = MeasuredModels()
        self._under_way: dict[str, asyncio.Task[Geometry | PriceFailure]] = {}
        # Two jobs a core: one may fetch while another is measured; more would only hold memory and disk.
        self._turn = asyncio.Semaphore(2 * (os.cpu_count() or 1))
        # Giants take turns, so that at least one place is left for the others.
        self._heavy_turn = asyncio.Semaphore(1)

    async def price(self, request: PriceRequest, *, heavy: bool) -> PriceResult:
        """The result of a request. Raises StorageAway, or RuntimeError when no sandbox can be had: ask again later."""
        model = request.specification.model
        measured = self._measured.get(model.sha256) or await self._measure_once(model, heavy)
        outcome: Priced | NotPriced
        if isinstance(measured, PriceFailure):
            outcome = NotPriced(measured)
        else:
            specification = request.specification
            outcome = domain.price(scaled(measured, specification.scale), specification, request.tariff)
        return PriceResult(
            job_id=request.job_id,
            subject_id=request.subject_id,
            currency=request.tariff.currency,
            tariff_version=request.tariff.version,
            result=outcome,
        )

    async def _measure_once(self, model: ModelRef, heavy: bool) -> Geometry | PriceFailure:
        task = self._under_way.get(model.sha256)
        if task is None:
            task = asyncio.create_task(self._measure_in_turn(model, heavy))
            self._under_way[model.sha256] = task
            task.add_done_callback(lambda _: self._under_way.pop(model.sha256, None))
        return await asyncio.shield(task)

    async def _measure_in_turn(self, model: ModelRef, heavy: bool) -> Geometry | PriceFailure:
        if heavy:
            async with self._heavy_turn:
                return await self._measure(model, _NICE_FOR_GIANTS)
        async with self._turn:
            return await self._measure(model, 0)

    async def _measure(self, model: ModelRef, nice: int) -> Geometry | PriceFailure:
        with NamedTemporaryFile(prefix="lostwax-price-", suffix=Path(model.name).suffix) as file:
            path = Path(file.name)
            try:
                digest = await self._models.download(model.sha256, path, at_most=model.size_bytes)
                if digest != model.sha256:
                    return _store_at_fault("its content has changed")
                with tracing.span("measure", size_bytes=model.size_bytes):
                    measured: Geometry | PriceFailure = await self._sandbox.measure(path, nice=nice)
            except NoSuchObject:
                return _store_at_fault("it is not there")
            except TooLong:
                return _store_at_fault("it is longer than it was")
            except ModelUnreadable as unreadable:
                measured = unreadable.failure
        self._measured.put(model.sha256, measured)
        return measured


def _store_at_fault(what: str) -> PriceFailure:
    log.error("model store at fault", extra={"what": what})
    return PriceFailure(
        "model_store", f"We could not read the model back from our store: {what}. We are looking into it.", "operator"
    )
