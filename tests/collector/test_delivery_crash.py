"""The process is killed between sending and marking, a hundred times: at least once, one id, never a second event."""

import subprocess
import sys
from datetime import UTC, datetime
from ipaddress import ip_network

import pytest
from fake_receiver import Receiver

from millicent.warehouse import delivery_log, endpoints, outbox
from millicent.warehouse.control import Control
from millicent.warehouse.reach import Reach

KILLS = 100

# One process without threads of its own that forks those to be killed: starting Python a hundred times takes a minute.
PROGRAM = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from millicent.collector.webhooks import adapters
from millicent.collector.webhooks.addresses import GuardedClient
from millicent.collector.webhooks.delivering import Deliverer
from millicent.warehouse import outbox
from millicent.warehouse.control import Control
from millicent.warehouse.reach import Reach

directory, endpoint = Path(sys.argv[1]), sys.argv[2]
outbox.LEASE = timedelta(milliseconds=1)
control = Control(directory)
outbox.take(control, "nobody", datetime.now(UTC))  # statements are compiled once, here
control.close()  # no connection outlives a fork
client = GuardedClient(Reach((ip_network("127.0.0.0/8"),), allow_http=True))

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def send(to, event, now):
    if when == "before":
        die()
    answered = adapters.deliver(client, to, event, now)
    if when == "between":
        die()
    return answered

attempted = outbox.attempted
def marked(*args):
    state = attempted(*args)
    if when == "after":
        die()
    return state
outbox.attempted = marked

for when in sys.argv[3:]:
    child = os.fork()
    if child == 0:
        Deliverer(control, send).step(endpoint)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0, flush=True)
"""


def killed(directory, endpoint, *when):
    """Have senders killed, one after another; the signals that ended them."""
    command = [sys.executable, "-c", PROGRAM, str(directory), endpoint, *when]
    return [int(line) for line in subprocess.run(command, check=True, capture_output=True).stdout.split()]


@pytest.fixture
def there(tmp_path):
    """A control plane, a receiver, its endpoint, and an event that is due."""
    control, receiver = Control(tmp_path / "data"), Receiver()
    check = endpoints.within(Reach((ip_network("127.0.0.0/8"),), allow_http=True))
    made = endpoints.put(control, "default", "ops", "webhook", receiver.url, "ann", check=check)
    receiver.secrets = (made.secret,)
    with control.begin() as connection:
        event = outbox.emit(connection, "default", "budget.threshold.crossed", datetime.now(UTC), {"limit": "100"})
    yield control, receiver, made.endpoint.id, event, tmp_path / "data"
    receiver.close()
    control.close()


@pytest.mark.crash
def test_killed_between_sending_and_marking_a_hundred_times(there):
    control, receiver, endpoint, event, directory = there
    assert killed(directory, endpoint, *["between"] * KILLS, *["never"] * 3) == [9] * KILLS + [0] * 3
    assert receiver.ids() == {event: KILLS + 1}
    assert {one.body for one in receiver.requests} == {receiver.requests[0].body}
    assert all(one.event == receiver.requests[0].event is not None for one in receiver.requests)
    (one,) = delivery_log.log(control, "default")
    assert (one.state, one.tries, len(one.attempts)) == ("delivered", 0, KILLS + 1)
    assert [tried.status for tried in one.attempts] == [None] * KILLS + [204]
    assert [each.id for each in delivery_log.happened(control, "default")] == [event]


@pytest.mark.crash
def test_killed_before_sending_it_is_sent_and_after_marking_it_is_not_sent_again(there):
    control, receiver, endpoint, event, directory = there
    assert killed(directory, endpoint, *["before"] * 5, "after", *["never"] * 3) == [9] * 6 + [0] * 3
    assert receiver.ids() == {event: 1}
    assert delivery_log.log(control, "default")[0].state == "delivered"


@pytest.mark.crash
def test_killed_while_it_stores_what_happened_there_is_all_of_it_or_nothing(there):
    control, _, _, event, directory = there
    program = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from sqlalchemy import text
from millicent.warehouse import outbox
from millicent.warehouse.control import Control
for number in range(20):
    child = os.fork()
    if child == 0:
        control = Control(Path(sys.argv[1]))
        with control.begin() as connection:
            connection.execute(text("INSERT INTO tenants VALUES (:id, 'cause')"), {"id": str(number)})
            outbox.emit(connection, "default", "budget.threshold.crossed", datetime.now(UTC), {"number": number})
            if number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True)
    told = [one for one in delivery_log.happened(control, "default") if one.id != event]
    with control.begin() as connection:
        causes = connection.exec_driver_sql("SELECT count(*) FROM tenants WHERE name = 'cause'").scalar_one()
    assert len(told) == causes == 10
    assert len(delivery_log.log(control, "default")) == 11
