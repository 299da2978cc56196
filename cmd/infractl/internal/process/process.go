// Package process tells whether a process that was noted in a file is still
// running on this computer.
package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ID names one process for good: numbers are given out again, but not in the
// same moment of the same boot.
type ID struct {
	// Boot is the kernel's name for the time since the computer was started,
	// and Namespace is where the number counts: a container has its own.
	Boot      string `json:"boot,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	PID       int    `json:"pid"`
	// Started is when the process was started, in clock ticks since the boot.
	Started uint64 `json:"started,omitempty"`
}

// Self is this process. Where the kernel does not tell, it only has a number.
func Self() ID {
	id := ID{PID: os.Getpid()}
	id.Boot, id.Namespace = here()
	if f, err := stat(id.PID); err == nil {
		id.Started = f.started
	}
	return id
}

// here is what the processes have in common whose numbers can be compared.
func here() (boot, namespace string) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", ""
	}
	namespace, err = os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return "", ""
	}
	return strings.TrimSpace(string(text)), namespace
}

// Here says that the process runs on this computer, or did.
func (id ID) Here() bool {
	boot, namespace := here()
	return boot != "" && id.Boot == boot && id.Namespace == namespace && id.PID > 0 && id.Started > 0
}

// Gone says that the process is known to have ended. It is false for a process
// of another computer, of which nothing is known from here.
func (id ID) Gone() bool {
	if !id.Here() {
		return false
	}
	if !exists(id.PID) {
		return true
	}
	f, err := stat(id.PID)
	return err == nil && (f.ended() || f.started != id.Started)
}

// AliveSince says whether process pid of this computer is running and was
// started no later than since, for notes that hold no more than that. One that
// was started later only has the same number.
func AliveSince(pid int, since time.Time) bool {
	if pid <= 0 || !exists(pid) {
		return false
	}
	f, err := stat(pid)
	if err != nil {
		return true // another user's, on a computer that hides them
	}
	if f.ended() {
		return false
	}
	boot, err := bootTime()
	if err != nil {
		return true
	}
	started := boot.Add(time.Duration(f.started) * time.Second / userHZ)
	return !started.After(since.Add(2 * time.Second)) // the boot time is known to the second only
}

// starter is the variable by which a process tells those that it starts who it is.
const starter = "INFRACTL_STARTED_BY"

// Variable is for the environment of processes that this one starts, so that they can
// be known as Orphaned.
func Variable() string {
	id := Self()
	return fmt.Sprintf("%s=%d %d", starter, id.PID, id.Started)
}

// Orphaned says that a process of this computer was started with the Variable of one
// that has ended.
func Orphaned(pid int) bool {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(text, []byte{0}) {
		if by, ok := bytes.CutPrefix(v, []byte(starter+"=")); ok {
			id := Self()
			n, _ := fmt.Sscanf(string(by), "%d %d", &id.PID, &id.Started)
			return n == 2 && id.Gone()
		}
	}
	return false
}

// HasChildren says whether a process of this computer has started others that run.
// It is true where that cannot be seen.
func HasChildren(pid int) bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return true
	}
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if f, err := stat(number); err == nil && f.parent == pid && !f.ended() {
			return true
		}
	}
	return false
}

// exists says whether there is a process with the number. /proc would not do:
// where it is mounted with hidepid, it lacks the processes of other users.
func exists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// userHZ is the unit of times in /proc/PID/stat: 100 per second in every Linux
// ABI that Go supports (proc(5), sysconf(_SC_CLK_TCK)).
const userHZ = 100

// fields are what matters here of /proc/PID/stat.
type fields struct {
	state   byte
	parent  int
	started uint64
}

// ended says that the process only waits to be collected by its parent.
func (f fields) ended() bool { return f.state == 'Z' || f.state == 'X' }

func stat(pid int) (fields, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return fields{}, err
	}
	// The second field is the program's name in brackets, which may hold anything.
	rest := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(rest) < 20 {
		return fields{}, fmt.Errorf("/proc/%d/stat is too short", pid)
	}
	parent, err := strconv.Atoi(rest[1])
	if err != nil {
		return fields{}, err
	}
	started, err := strconv.ParseUint(rest[19], 10, 64)
	return fields{state: rest[0][0], parent: parent, started: started}, err
}

func bootTime() (time.Time, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return time.Time{}, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "btime "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			return time.Unix(n, 0), err
		}
	}
	return time.Time{}, errors.New("/proc/stat does not say when the computer was started")
}
