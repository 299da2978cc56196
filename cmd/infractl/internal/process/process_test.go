package process

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"
)

// sleeper is a child of this process that lives until the test ends.
func sleeper(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// identify is the ID of a child.
func identify(t *testing.T, pid int) ID {
	t.Helper()
	id := Self()
	f, err := stat(pid)
	if err != nil {
		t.Fatal(err)
	}
	id.PID, id.Started = pid, f.started
	return id
}

func TestProcessIsGoneOnceItHasEnded(t *testing.T) {
	cmd := sleeper(t)
	id := identify(t, cmd.Process.Pid)
	if id.Gone() {
		t.Error("a running process is gone")
	}
	_ = cmd.Process.Kill()
	// Before it is collected it is a zombie.
	for end := time.Now().Add(5 * time.Second); !id.Gone() && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	if !id.Gone() {
		t.Error("a killed process that was not collected is not gone")
	}
	_ = cmd.Wait()
	if !id.Gone() {
		t.Error("a process that was collected is not gone")
	}
}

func TestNumberGivenOutAgainIsAnotherProcess(t *testing.T) {
	id := Self()
	if id.Gone() {
		t.Error("this process is gone")
	}
	id.Started--
	if !id.Gone() {
		t.Error("an earlier process with this one's number is not gone")
	}
}

func TestNothingIsKnownOfOtherComputersAndContainers(t *testing.T) {
	for name, change := range map[string]func(*ID){
		"another boot":      func(id *ID) { id.Boot = "0" },
		"another container": func(id *ID) { id.Namespace = "pid:[1]" },
		"no boot":           func(id *ID) { id.Boot = "" },
		"no time":           func(id *ID) { id.Started = 0 },
	} {
		id := Self()
		id.PID = 1 << 22 // more than the kernel gives out
		if !id.Gone() {
			t.Fatal("a process that never was is not gone")
		}
		change(&id)
		if id.Gone() {
			t.Errorf("%s: gone", name)
		}
	}
}

func TestLivingProcessesAreTold(t *testing.T) {
	if !AliveSince(os.Getpid(), time.Now()) {
		t.Error("this process is not alive")
	}
	if AliveSince(os.Getpid(), time.Now().Add(-24*time.Hour)) {
		t.Error("this process was alive a day ago")
	}
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if AliveSince(cmd.Process.Pid, time.Now()) {
		t.Error("a process that has ended is alive")
	}
	if AliveSince(0, time.Now()) {
		t.Error("process 0 is alive")
	}
}

func TestOrphanIsAProcessWhoseStarterHasEnded(t *testing.T) {
	starter := sleeper(t)
	id := identify(t, starter.Process.Pid)
	child := exec.Command("sleep", "60")
	child.Env = append(os.Environ(), fmt.Sprintf("INFRACTL_STARTED_BY=%d %d", id.PID, id.Started))
	own := exec.Command("sleep", "60")
	own.Env = append(os.Environ(), Variable())
	for _, cmd := range []*exec.Cmd{child, own} {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	}
	if Orphaned(child.Process.Pid) {
		t.Error("its starter lives")
	}
	_ = starter.Process.Kill()
	_ = starter.Wait()
	if !Orphaned(child.Process.Pid) {
		t.Error("its starter has ended")
	}
	if Orphaned(own.Process.Pid) || Orphaned(os.Getpid()) {
		t.Error("this process lives")
	}
}

func TestChildrenAreThoseThatRun(t *testing.T) {
	cmd := sleeper(t)
	if !HasChildren(os.Getpid()) {
		t.Error("its child runs")
	}
	if HasChildren(cmd.Process.Pid) {
		t.Error("sleep has no children")
	}
}
