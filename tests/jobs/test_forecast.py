"""What --dry-run says that styles will take."""

from cluster.runtime.run_record import run_record
from cluster.storage import Storage
from jobs.finetuning.admission import Usage
from jobs.finetuning.forecast import Measured, forecast
from osasis.settings import TrainConfig


def test_what_styles_took_foretells_what_others_take(storage: Storage) -> None:
    config = TrainConfig(iterations=10, batch_size=2)
    longer = config.model_copy(update={"iterations": 30, "seed": 3})
    assert forecast(storage, "mini64", [config]) is None
    measured = Measured()
    with run_record(storage, job="train_styles", config=settings(config, longer)) as record:
        measured.add(20.0, 10)
        measured.add(40.0, 30)
        measured.add(0.1, 0)
        record.metrics |= measured.metrics(Usage(3 * 2**30))
    with run_record(storage, job="train_styles", config=settings(config)):
        pass  # one that trained nothing
    storage.write_bytes("runs/99990101T000000Z-damaged.json", b"{")
    found = forecast(storage, "mini64", [longer, longer])
    assert found is not None
    assert (found.seconds, found.memory_gib, found.measured_in) == (90.0, 3.0, record.run_id)
    assert "1.5 min of one worker for all" in str(found)
    assert forecast(storage, "faces", [config]) is None
    other = config.model_copy(update={"batch_size": 8})
    assert forecast(storage, "mini64", [other]) is None
    assert forecast(storage, "mini64", [config, other]) is None
    assert forecast(storage, "mini64", [config], how={"memory": 24 * 10**9}) is None


def settings(*configs: TrainConfig) -> dict[str, object]:
    return {"base": "mini64", "styles": {f"style-{i}": c.model_dump(mode="json") for i, c in enumerate(configs)}}
