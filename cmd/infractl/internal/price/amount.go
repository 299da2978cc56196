package price

import (
	"encoding/json"
	"fmt"
	"math/big"
	"regexp"
	"strings"
)

// Amount is an amount of money, exact to the last decimal place.
type Amount struct {
	// value always is a decimal fraction: amounts are read as such, added, and
	// multiplied by whole numbers. Nil is zero.
	value *big.Rat
}

var decimal = regexp.MustCompile(`^[0-9]{1,15}(\.[0-9]{1,30})?$`)

// ParseAmount reads an amount as the cloud writes it, such as 3.4900.
func ParseAmount(text string) (Amount, error) {
	if !decimal.MatchString(text) {
		return Amount{}, fmt.Errorf("%q is not an amount of money", text)
	}
	v, ok := new(big.Rat).SetString(text)
	if !ok {
		return Amount{}, fmt.Errorf("%q is not an amount of money", text)
	}
	return Amount{v}, nil
}

func (a Amount) rat() *big.Rat {
	if a.value == nil {
		return new(big.Rat)
	}
	return a.value
}

// Plus is the sum of two amounts.
func (a Amount) Plus(b Amount) Amount { return Amount{new(big.Rat).Add(a.rat(), b.rat())} }

// Minus is their difference, which may be negative.
func (a Amount) Minus(b Amount) Amount { return Amount{new(big.Rat).Sub(a.rat(), b.rat())} }

// Times is the price of n pieces.
func (a Amount) Times(n int) Amount {
	return Amount{new(big.Rat).Mul(a.rat(), new(big.Rat).SetInt64(int64(n)))}
}

// places are the decimal places that amounts are written with at the least.
const places = 2

// String writes the amount with all its decimal places, at least two.
func (a Amount) String() string {
	needed, _ := a.rat().FloatPrec()
	return a.rat().FloatString(max(needed, places))
}

// Signed writes a difference with its sign.
func (a Amount) Signed() string {
	if s := a.String(); strings.HasPrefix(s, "-") {
		return s
	}
	return "+" + a.String()
}

// MarshalJSON writes the amount as a text, since a JSON number is a float for
// most who read it.
func (a Amount) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }
