"""Packets between the keeper and its children: nobody waits for somebody who is not awake."""

import os
import socket
import threading

from jobworker.supervisor.keeper import packets

DEADLINE_SECONDS = 30.0


def test_a_full_socket_rings_for_who_reads_only_when_called() -> None:
    control, reader = packets.pair()
    bell, bell_reader = socket.socketpair()
    line = packets.Line(control, bell)
    received = []

    def read() -> None:
        while bell_reader.recv(1):
            while True:
                try:
                    packet = packets.receive(reader)
                except BlockingIOError:
                    break
                if packet is None:
                    return
                received.append(packet[0])

    reader.setblocking(False)
    sleeper = threading.Thread(target=read, daemon=True)
    sleeper.start()
    sender = threading.Thread(
        target=lambda: [line.send(("drop", str(number))) for number in range(5000)], daemon=True
    )
    sender.start()
    sender.join(DEADLINE_SECONDS)
    stuck = sender.is_alive()
    control.shutdown(socket.SHUT_RDWR)
    bell.shutdown(socket.SHUT_RDWR)
    sender.join()
    sleeper.join()
    for end in (control, reader, bell, bell_reader):
        end.close()
    assert not stuck
    # The rest was read when the bell closed, or not at all; none is doubled or out of order.
    assert received == [("drop", str(number)) for number in range(len(received))]
    assert len(received) > 1000


def test_descriptors_arrive_with_their_packet_and_closed_on_exec() -> None:
    ours, theirs = packets.pair()
    read, write = os.pipe()
    with ours, theirs:
        packets.send(ours, ("keep", "a"), (read, write))
        packets.send(ours, ("drop", "a"))
        packet, descriptors = packets.receive(theirs) or ((), ())
        assert packet == ("keep", "a")
        assert [os.get_inheritable(descriptor) for descriptor in descriptors] == [False, False]
        os.write(descriptors[1], b"x")
        assert os.read(read, 1) == b"x"
        packets.close_all((read, write, *descriptors))
        assert packets.receive(theirs) == (("drop", "a"), ())
        ours.close()
        assert packets.receive(theirs) is None
